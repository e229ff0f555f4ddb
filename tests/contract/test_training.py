"""What the training loop reads, saves and divides, on a tiny language model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models import base, run, same, splits

from expunge.core import cache
from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.methods.compose import compose
from expunge.methods.objective import Objective
from expunge.models.weights import snapshot
from expunge.training import Trainer, checkpoint, parts, references, steps

BUDGET = Budget(steps=6, batch_size=4, learning_rate=1e-3, stop="none", floor=0.0)


def test_a_run_that_nothing_stops_reads_no_curve_and_keeps_no_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []
    monkeypatch.setattr(checkpoint, "save_best", lambda folder, tensors: saved.append(folder))
    made = run("npo", "lm", tmp_path, budget=BUDGET)
    assert made.notes["outcome"]["curve"] == [] and not saved


def test_a_run_with_a_floor_keeps_its_best_weights(tmp_path: Path) -> None:
    """The check above can fail: where a floor may send the run back there are points and best weights."""
    made = run("npo", "lm", tmp_path, budget=BUDGET.model_copy(update={"floor": 0.5}))
    assert [point["step"] for point in made.notes["outcome"]["curve"]] == list(range(7))
    assert (tmp_path / "work" / checkpoint.BEST).is_file()


@pytest.mark.parametrize(("every", "steps"), [(1, [2, 4, 6]), (3, [3, 6]), (4, [6])])
def test_checkpoints_follow_each_other_as_the_plan_says(
    every: int, steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch, of two steps here, where that is longer; the end has its own, and none lies just before it."""
    saved: list[int] = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, tensors, state: saved.append(step))
    compose("npo").method(base("lm"), splits("lm"), Context(BUDGET, tmp_path, checkpoint_every=every))
    assert saved == steps


@pytest.mark.parametrize("method", ["npo", "npo_kl"])
def test_runs_of_one_base_share_the_reference_values(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read once by content: the second run has the same weights and the same cost; another base's are its own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    found: list[int] = []
    record = references.record
    monkeypatch.setattr(references, "record", lambda *given: found.append(len(given[1])) or record(*given))

    def train(name: str, shift: float = 0.0) -> Context:
        model, context = base("lm"), Context(BUDGET, tmp_path / name)
        with torch.no_grad():
            next(model.module.parameters()).add_(shift)
        with cache.journal(tmp_path / name / "caches.jsonl"):
            compose(method).method(model, splits("lm"), context)
        weights[name] = snapshot(model.module)
        return context

    weights: dict[str, dict[str, torch.Tensor]] = {}
    first, second = train("first"), train("second")
    once = len(found)
    assert once and same(weights["first"], weights["second"])
    assert first.compute.state() == second.compute.state()
    entries = cache.read_journal(tmp_path / "second" / "caches.jsonl")
    assert len(entries) == once and all(entry.startswith("references/") for entry in entries)
    train("another", shift=0.01)
    assert len(found) == 2 * once


@pytest.mark.parametrize("method", ["npo", "npo_kl", "dpo"])
def test_parts_by_length_have_the_loss_of_the_whole_batch(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged and in the gradient's effect; fewer positions are computed, since less is padded."""
    counts: list[int] = []
    of = steps.StepLosses.__post_init__

    def count(losses: steps.StepLosses) -> None:
        of(losses)
        counts.append(len(losses.parts))

    monkeypatch.setattr(steps.StepLosses, "__post_init__", count)
    whole = run(method, "lm", tmp_path / "whole", budget=BUDGET.model_copy(update={"micro_batch_size": 4}))
    assert set(counts) == {1}
    counts.clear()
    monkeypatch.setattr(parts, "LAUNCH", {"cpu": 0.0})
    monkeypatch.setattr(parts, "WEIGHTS", {"cpu": 1.0})
    made = run(method, "lm", tmp_path / "parts", budget=BUDGET)
    assert max(counts) > 1
    assert [line["loss"] for line in made.lines] == pytest.approx([line["loss"] for line in whole.lines], rel=1e-5)
    assert all(torch.allclose(made.weights[name], value, atol=1e-4) for name, value in whole.weights.items())


def test_two_processes_make_as_many_forwards_of_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharded weights are gathered in every forward, so that none may be missing; together they read each place."""
    method, model, context = compose("npo").method, base("lm"), Context(BUDGET, tmp_path)
    assert isinstance(method, Objective)
    trainable = method.weights(model, splits("lm"), context)
    trainer = Trainer(model, splits("lm"), method.terms, context, trainable, method.update, "forget")
    trainer.cutting = parts.Cutting(0.0, least=2)
    monkeypatch.setattr(steps.processes, "world", lambda: 2)
    monkeypatch.setattr(steps.processes, "add", lambda tensors: None)
    places = []
    for rank in (0, 1):
        monkeypatch.setattr(steps.processes, "rank", lambda rank=rank: rank)
        places.append([part["forget"].kept for part in trainer._losses(0).parts])
    assert [len(part) for part in places[0]] == [len(part) for part in places[1]] == [1, 1]
    assert sorted(place for process in places for part in process for place in part) == [0, 1, 2, 3]
