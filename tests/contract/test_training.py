"""What the training loop reads, saves and divides, on a tiny language model."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import run

from expunge.core.budget import Budget
from expunge.training import checkpoint

BUDGET = Budget(steps=6, batch_size=4, learning_rate=1e-3, stop="none", floor=0.0)


def test_a_run_that_nothing_stops_reads_its_curve_twice_and_keeps_no_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []
    monkeypatch.setattr(checkpoint, "save_best", lambda folder, tensors: saved.append(folder))
    made = run("npo", "lm", tmp_path, budget=BUDGET)
    assert [point["step"] for point in made.notes["outcome"]["curve"]] == [0, 6] and not saved


def test_a_run_with_a_floor_keeps_its_best_weights(tmp_path: Path) -> None:
    """The check above can fail: where a floor may send the run back there are points and best weights."""
    made = run("npo", "lm", tmp_path, budget=BUDGET.model_copy(update={"floor": 0.5}))
    assert [point["step"] for point in made.notes["outcome"]["curve"]] == list(range(7))
    assert (tmp_path / "work" / checkpoint.BEST).is_file()
