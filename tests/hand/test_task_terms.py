"""A hypernetwork by hand: what it writes, what is held of that, and what unlearning a task aims at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Step
from expunge.core.errors import BadInput
from expunge.methods.compose import compose
from expunge.methods.objectives.uncle import Noise, uncle
from expunge.methods.trainers.tasks import check, train
from expunge.models.build import fresh
from expunge.models.networks import Hypernetwork

SPEC = {
    "factory": "expunge.models.networks:Hypernetwork",
    "arguments": {"inputs": 4, "classes": 3, "tasks": 3, "hidden": 5},
}
Rows = list[dict[str, Any]]


def rows(task: int, count: int = 12) -> Rows:
    draws = np.random.default_rng(task)
    return [
        {"features": np.append(draws.normal(size=4), task).astype(np.float32), "label": i % 3} for i in range(count)
    ]


def ready(term: Any, model: Any, forget: Rows) -> Any:
    term.prepare(SimpleNamespace(model=model, examples=lambda stream: forget))
    return term


def step(share: float = 1.0) -> Step:
    return Step({}, 0, 0, torch.Generator().manual_seed(0), share)


def test_a_row_is_answered_by_the_weights_of_its_task() -> None:
    """Two tasks in one batch: each row by the matrices that are written for its own, 4 x 5 and 5 x 3 with biases."""
    network: Any = fresh(SPEC, [], 0).module
    x = torch.randn(2, 4)
    out = network(torch.cat([x, torch.tensor([[0.0], [2.0]])], 1))
    for row, task in enumerate((0, 2)):
        first, head = network.write_all([task])[0].split([5 * 5, 6 * 3])
        first, head = first.reshape(5, 5), head.reshape(6, 3)
        hidden = (x[row] @ first[:4] + first[4]).clamp(min=0)
        assert torch.allclose(out[row], hidden @ head[:5] + head[5], atol=1e-6)


def test_the_loss_of_uncle_by_hand() -> None:
    """Noise next to 0: the squared norm of what is written for the task; and twice how far another task's has moved."""
    model = fresh(SPEC, [], 0)
    network: Any = model.module
    network.known[:] = True
    term = uncle(hold=2.0, draws=3, spread=1e-9)
    assert isinstance(term, Noise)
    ready(term, model, rows(1))
    norm = float(network.write_all([1]).detach().square().sum())
    assert float(term(step(0.5))) == pytest.approx(0.5 * norm, rel=1e-5)
    others = network.write_all([0, 2]).detach()
    with torch.no_grad():
        network.tasks.weight[0] += 1.0
    moved = float((network.write_all([0, 2]) - others).square().sum()) / 2
    assert moved > 0 and float(term(step())) == pytest.approx(norm + 2 * moved, rel=1e-5)
    term.after_step(0, {})
    assert network.known.tolist() == [True, False, True]


def test_noise_adds_its_variance() -> None:
    """E |w - z|^2 = |w|^2 + P spread^2, P = 43 weights, over 2,000 draws."""
    model = fresh(SPEC, [], 0)
    network: Any = model.module
    term = ready(uncle(hold=0.0, draws=2000, spread=0.5), model, rows(1))
    wanted = float(network.write_all([1]).detach().square().sum()) + 43 * 0.25
    assert float(term(step())) == pytest.approx(wanted, rel=0.01)


def trained(hold: float, folder: Path) -> tuple[Any, torch.Tensor]:
    """The model after tasks 0 and 1, and what was written for task 0 after the first."""
    budget = Budget(epochs=6, batch_size=4, learning_rate=1e-2)
    model = train(fresh(SPEC, [], 0), rows(0), Context(budget, folder / "first", 0, "train"), hold=hold)
    network: Any = model.module
    first = network.write_all([0]).detach().clone()
    context = Context(budget, folder / "second", 0, "train")
    train(model, rows(1), context, hold=hold)
    assert context.notes["outcome"]["tokens"] == 6 * 12 and network.known.tolist() == [True, True, False]
    return network, first


def test_what_is_written_for_earlier_tasks_is_held(tmp_path: Path) -> None:
    """With the hold task 0's weights move a fifth as far as without it, at most."""
    moved = {}
    for hold in (0.0, 100.0):
        network, first = trained(hold, tmp_path / str(hold))
        moved[hold] = float((network.write_all([0]) - first).norm())
    assert moved[100.0] <= 0.2 * moved[0.0], moved


def test_other_networks_are_refused() -> None:
    digits = fresh({"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}, [], 0)
    with pytest.raises(BadInput, match="needs a hypernetwork"):
        check(digits, rows(0))
    with pytest.raises(BadInput, match="needs a hypernetwork"):
        compose("uncle").method.fits(digits, {}, None)
    assert "tasks" in fresh(SPEC, [], 0).capabilities and isinstance(fresh(SPEC, [], 0).module, Hypernetwork)
