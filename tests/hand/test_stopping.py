"""The sentence on why a run stopped, on figures given by hand: it is true of the weights that are taken."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from expunge.evaluation.acceptance import parse, watch
from expunge.training import stopping
from expunge.training.stopping import Stop

MODEL = SimpleNamespace(family="causal_lm")


def run(
    forget: list[float], kept: list[float], monkeypatch: pytest.MonkeyPatch, *, total: int = 10, **more: Any
) -> Stop:
    """A run of ten points with a target of 2 nats; the NLL of forget and the retain probability at the start and at
    each point."""
    levels, shares = iter(forget), iter(kept)

    def figures(model: Any, rows: list[Any]) -> dict[str, float]:
        return {"nll": next(levels)} if rows == ["forget"] else {"nll": 0.0, "probability": next(shares)}

    monkeypatch.setattr("expunge.training.stopping.figures", figures)
    stop = Stop(MODEL, ["forget"], ["retain"], 2.0, "holdout", 0.5, total, True, **more)  # type: ignore[arg-type, list-item]
    stop.start()
    for step in range(1, total + 1):
        stop.check(step, None)
        if stop.reason:
            break
    return stop


def keeps_nine_tenths(point: Mapping[str, float], first: Mapping[str, float]) -> float:
    return float(point["retain_probability"] >= 0.9 * first["retain_probability"])


def test_the_level_is_reached_by_the_weights_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = run([0.1, 1.0, 2.1], [1.0, 0.95, 0.95], monkeypatch, watch=keeps_nine_tenths)
    assert (stop.reason, stop.best_step) == ("holdout", 2)
    assert stop.sentence == "Stopped at step 2: the forget NLL of 2.10 reached the holdout's 2.00 nats."


def test_the_bar_takes_weights_that_did_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the level the bar's retain line is broken: the weights from before are taken, with their own NLL."""
    stop = run([0.1, 0.17, 2.1], [1.0, 0.95, 0.6], monkeypatch, watch=keeps_nine_tenths)
    assert (stop.reason, stop.best_step) == ("bar", 1)
    assert stop.sentence == (
        "Stopped at step 2: the forget NLL of 2.10 reached the holdout's 2.00 nats, but there fewer of the acceptance "
        "criteria were met; the weights of step 1 (forget NLL 0.17) were taken."
    )


def test_a_point_far_beyond_the_level_gives_way_to_one_just_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = run([0.1, 1.9, 6.0], [1.0, 0.95, 0.9], monkeypatch)
    assert (stop.reason, stop.best_step) == ("holdout", 1)
    assert "but an earlier point was nearer; the weights of step 1 (forget NLL 1.90) were taken" in stop.sentence


@pytest.mark.parametrize(
    ("kept", "reason", "said"),
    [
        ([1.0, 0.9, 0.4], "retain floor", "the weights of step 1 (forget NLL 1.50) were taken"),
        (
            [1.0, 0.9, 0.8],
            "budget",
            "used up before the forget NLL of 1.20 reached the holdout's 2.00 nats; the weights",
        ),
    ],
)
def test_other_ends_name_the_figure_of_the_weights_too(
    kept: list[float], reason: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = run([0.1, 1.5, 1.2], kept, monkeypatch, total=2)
    assert stop.reason == reason and stop.best_step == 1 and said in stop.sentence


def points(target: float | None, floor: float, retain: list[str], bar: str) -> list[int]:
    """The steps of a run of twenty at which its curve has a point."""
    bars = watch([parse(bar, ">= 0.5")] if bar else [])
    stop = Stop(MODEL, ["forget"], retain, target, "none", floor, 20, watch=bars)  # type: ignore[arg-type, list-item]
    return [step for step in range(1, 21) if stop.decides and stop.due(step)]


@pytest.mark.parametrize(
    ("target", "floor", "retain", "bar"),
    [(2.0, 0.0, [], ""), (None, 0.9, ["retain"], ""), (None, 0.0, [], "retain.probability")],
)
def test_a_curve_that_can_stop_the_run_or_send_it_back_has_ten_points(
    target: float | None, floor: float, retain: list[str], bar: str
) -> None:
    assert points(target, floor, retain, bar) == list(range(2, 21, 2))


@pytest.mark.parametrize(("floor", "retain", "bar"), [(0.0, ["retain"], ""), (0.9, [], ""), (0.0, [], "privacy.worst")])
def test_a_curve_that_decides_nothing_is_not_read(floor: float, retain: list[str], bar: str) -> None:
    """No floor, nothing that the floor could be read on, or a bar on figures that no curve has."""
    assert points(None, floor, retain, bar) == []


def test_a_run_that_nothing_can_end_early_reads_nothing_and_ends_with_its_last_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "figures", lambda *given: pytest.fail("nobody uses these figures"))
    stop = Stop(MODEL, ["forget"], ["retain"], None, "none", 0.0, 3)  # type: ignore[list-item]
    stop.start()
    assert [stop.check(step, 1.0) for step in (1, 2, 3)] == [False, False, True]
    assert stop.reason == "budget" and stop.best_step == 3 and not stop.curve
    assert stop.sentence == "Stopped at step 3: the budget was used up."
