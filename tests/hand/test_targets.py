"""Targets by example: where they come from, and that an example at its target is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_proxy_gold import model, rows

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Output, Step
from expunge.core.errors import BadInput
from expunge.data.sampling import halves
from expunge.methods._targets import Calibrated, difficulty, mean_nll
from expunge.methods.compose import compose

NAMES = ("ga", "npo", "simnpo", "flat")
SPLITS = {
    "forget": rows("Ada Ferrow", 1),
    "retain": rows("Bo Lindqer", 11),
    "holdout": [*rows("Dan Obrist", 31), *rows("Eva Prunt", 41)],
}


def term_of(name: str) -> tuple[Any, Any]:
    composed = compose({name: {"target": "calibrated"}})
    assert composed.objective is not None
    return composed, composed.objective.terms["forget"].loss


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_the_unseen_examples_own(name: str, tmp_path: Path) -> None:
    """Each is an NLL of the holdout's first half under the reference model, the hardest example's the highest."""
    composed, loss = term_of(name)
    assert isinstance(loss, Calibrated)
    reference = model(SPLITS)
    unseen = mean_nll(reference, halves(SPLITS["holdout"], 0)[0]).sort().values
    hard = difficulty(reference, SPLITS["forget"], SPLITS["retain"])
    composed.method(reference, SPLITS, Context(Budget(steps=1, batch_size=4, learning_rate=1e-4), tmp_path))
    targets = torch.tensor([loss.targets[i] for i in range(4)])
    assert targets.sort().values.tolist() == pytest.approx(unseen.tolist(), abs=1e-4)
    assert int(targets.argmax()) == int(hard.argmax()) and int(targets.argmin()) == int(hard.argmin())


@pytest.mark.parametrize("name", NAMES)
def test_an_example_at_its_target_has_no_gradient(name: str) -> None:
    _, loss = term_of(name)
    loss.targets = {0: 1.0, 1: 3.0}
    logp = torch.full((2, 2), -2.0, requires_grad=True)
    out = Output(
        -logp.sum(-1), torch.tensor([2, 2]), torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool), logp_BT=logp
    )
    out.indices = (0, 1)
    out.reference = Output(torch.ones(2), torch.tensor([2, 2]), out.labels_BT, out.mask_BT)  # type: ignore[assignment]
    constant = Output(torch.ones(2), out.n_B, out.labels_BT, out.mask_BT, logp_BT=torch.full((2, 2), -1.0))
    loss(Step({"forget": out, "template": constant}, 0, 0, torch.Generator())).backward()
    assert logp.grad is not None
    assert logp.grad[0].abs().max() == 0 and logp.grad[1].abs().min() > 0


def test_a_request_without_a_holdout_is_refused() -> None:
    composed, _ = term_of("npo")
    some = {name: part for name, part in SPLITS.items() if name != "holdout"}
    with pytest.raises(BadInput, match=r"holdout: .*is missing, and an option of npo needs it"):
        composed.method.fits(None, some, None)
    assert compose("npo").method.fits(None, some, None) == []
