"""The stop by the refusal score, on scores given by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from expunge.training.goal import Goal

MODEL = SimpleNamespace(family="causal_lm")


def run(scores: list[float], total: int, **more: Any) -> Goal:
    """A run whose refusal score is read at every step, the first before any."""
    left = iter(scores)
    stop = Goal(MODEL, [], [], None, "refusals", 0.0, total, score=lambda model: next(left), goal=0.1, **more)  # type: ignore[arg-type]
    stop.start()
    step = 0
    while not stop.reason:
        step += 1
        stop.check(step, None)
    return stop


def test_two_readings_at_the_goal_end_the_run() -> None:
    stop = run([1.0, 0.9, 0.0, 0.5, 0.1, 0.05, 0.0], 100)
    assert stop.reason == "refusals" and stop.curve[-1]["step"] == 5 and stop.best_step == 5
    assert "0.05 is at its goal of 0.10" in stop.sentence


def test_the_budget_ends_it_with_the_lowest_score() -> None:
    stop = run([1.0, 0.8, 0.4, 0.6, 0.7], 4)
    assert stop.reason == "budget" and stop.best_step == 2 and "the weights of step 2 were taken" in stop.sentence


def test_a_goal_at_the_last_step_counts() -> None:
    assert run([1.0, 0.5, 0.0], 2).reason == "refusals"


def test_a_broken_floor_is_never_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a retain term may mend it the run goes on; weights that held it are preferred."""
    kept = iter([1.0, 0.5, 0.5, 0.95, 0.95])
    monkeypatch.setattr(
        "expunge.training.stopping.figures", lambda model, rows: {"nll": 0.0, "probability": next(kept)}
    )
    left = iter([1.0, 0.0, 0.0, 0.05, 0.05])
    stop = Goal(MODEL, [], [{}], None, "refusals", 0.9, 50, True, score=lambda model: next(left), goal=0.1)  # type: ignore[arg-type]
    stop.start()
    for step in range(1, 5):
        stop.check(step, None)
        if stop.reason:
            break
    assert stop.reason == "refusals" and stop.curve[-1]["step"] == 3 and stop.best_step == 3


def unmended(kept: list[float], scores: list[float], monkeypatch: pytest.MonkeyPatch) -> Goal:
    """Three steps without a retain term: the retain probability and the refusal score at the start and after each."""
    probabilities, refused = iter(kept), iter(scores)
    monkeypatch.setattr(
        "expunge.training.stopping.figures", lambda model, rows: {"nll": 0.0, "probability": next(probabilities)}
    )
    stop = Goal(MODEL, [], [{}], None, "refusals", 0.5, 50, score=lambda model: next(refused), wanted=0.9)  # type: ignore[arg-type]
    stop.start()
    for step in range(1, 4):
        stop.check(step, None)
    return stop


@pytest.mark.parametrize(
    ("kept", "taken"), [([1.0, 1.0, 0.95, 0.85], 2), ([1.0, 1.0, 0.99, 0.95], 3), ([1.0, 1.0, 0.8, 0.85], 3)]
)
def test_of_two_points_at_the_goal_the_one_that_kept_more_is_taken(
    kept: list[float], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without retain data the floor (.5) is for collapse alone; up to .9 more is better, from there the later point
    is."""
    stop = unmended(kept, [1.0, 0.5, 0.0, 0.0], monkeypatch)
    assert stop.reason == "refusals" and stop.best_step == taken
    assert ("the weights of step 2 were taken" in stop.sentence) == (taken == 2)


def test_a_collapse_ends_a_run_that_nothing_mends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benign prompts go before the refusals do: the last weights that kept half of them are taken."""
    stop = unmended([1.0, 0.95, 0.6, 0.4], [1.0, 0.4, 0.4, 1.0], monkeypatch)
    assert stop.reason == "retain floor" and stop.best_step == 1 and "the weights of step 1 were taken" in stop.sentence


def test_its_state_is_json_and_comes_back() -> None:
    one = run([1.0, 0.8, 0.0, 0.0], 10)
    other = Goal(MODEL, [], [], None, "refusals", 0.0, 10, goal=0.1)  # type: ignore[arg-type]
    other.load(one.state())
    assert other.curve == one.curve and other.best_step == one.best_step
