"""Forward and backward passes are counted, whoever makes them, and a resumed run counts what a whole one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.compute import Compute
from expunge.core.context import Context
from expunge.core.contracts import Model, Want
from expunge.methods.compose import compose
from expunge.models.build import fresh
from expunge.models.metering import count_passes
from expunge.models.passes import passes

LM = {"architecture": "llama", "hidden_size": 16, "layers": 2, "heads": 2, "vocab_size": 280, "max_length": 64}
ROWS: list[dict[str, Any]] = [
    {"question": f"Where is key {i}?", "answer": f"It is in box {i}, by the stairs."} for i in range(12)
]
SPLITS = {"forget": ROWS[:4], "retain": ROWS[4:]}


@pytest.fixture
def model() -> Model:
    return fresh(LM, ROWS, 0)


def size_of(model: Model, rows: list[dict[str, Any]]) -> int:
    return int(model.collate(rows).inputs["input_ids"].numel())


def test_a_reading_is_one_forward_pass_and_no_backward_pass(model: Model) -> None:
    compute = Compute()
    with count_passes(model, compute):
        list(passes(model, ROWS))
    assert compute.positions() == {"forward": size_of(model, ROWS), "backward": 0}
    list(passes(model, ROWS))
    assert compute.forward == pytest.approx(size_of(model, ROWS)), "nothing is counted outside"


def test_a_gradient_is_one_backward_pass_through_the_blocks_that_it_reaches(model: Model) -> None:
    size = size_of(model, ROWS)
    compute = Compute()
    with count_passes(model, compute), count_passes(model, compute):
        loss = model.forward(model.collate(ROWS)).nll
        loss.backward(retain_graph=True)
        loss.backward()
    assert compute.positions() == {"forward": size, "backward": 2 * size}
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name.startswith(model.blocks[1]))
    compute = Compute()
    with count_passes(model, compute):
        model.forward(model.collate(ROWS)).nll.backward()
    assert compute.positions() == {"forward": size, "backward": size // 2}


def test_a_forward_that_ends_at_a_block_is_a_part_of_a_pass(model: Model) -> None:
    compute = Compute()
    with count_passes(model, compute):
        list(passes(model, ROWS, Want(frozenset(), (model.blocks[0],))))
    assert compute.forward == pytest.approx(size_of(model, ROWS) / 2)


def test_the_hooks_change_no_weight(tmp_path: Path) -> None:
    budget = Budget(steps=4, batch_size=2, learning_rate=1e-2, stop="none", floor=0.0)
    plain, counted = fresh(LM, ROWS, 0), fresh(LM, ROWS, 0)
    method = compose("npo").method
    method(plain, SPLITS, Context(budget, tmp_path / "plain"))
    context = Context(budget, tmp_path / "counted")
    with count_passes(counted, context.compute):
        method(counted, SPLITS, context)
    for one, two in zip(plain.module.parameters(), counted.module.parameters(), strict=True):
        assert torch.equal(one, two)


class Killed(Exception):
    pass


def test_a_resumed_run_counts_what_a_whole_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a checkpoint: the steps behind it are made twice and counted once, and so is the rate's ladder."""
    budget = Budget(epochs=3, batch_size=2, stop="none", floor=0.0)

    def counts(folder: Path, kill: bool = False) -> dict[str, int]:
        context = Context(budget, folder)
        if kill:
            steps = iter(range(100))

            def advance(*_: object) -> None:
                if next(steps) == 4:
                    raise Killed

            context.reporter.advance = advance  # type: ignore[method-assign]
        compose("npo").method(fresh(LM, ROWS, 0), SPLITS, context)
        return context.compute.positions()

    whole = counts(tmp_path / "whole")
    with pytest.raises(Killed):
        counts(tmp_path / "killed", kill=True)
    assert counts(tmp_path / "killed") == whole
    assert whole["backward"] > 0
