"""Margins of the comparisons with gold: two retrainings differ too, by the seed alone."""

from __future__ import annotations

from collections.abc import Iterable

from expunge.evaluation.scores import WITHOUT_INTERVAL, Score
from expunge.ledger.evidence import SECOND_GOLD

LEAST = 0.1
"""Margin where there is no second gold, and the least of all."""
FACTOR = 2.0
"""Margin in units of the difference between two gold models."""


def margin(gold: float | None, second: float | None) -> float:
    """The difference to gold up to which two models count as alike, in the score's own unit."""
    if gold is None or second is None:
        return LEAST
    return max(LEAST, FACTOR * abs(gold - second))


def margins(scores: Iterable[Score]) -> dict[str, float]:
    """Score -> margin, of the scores with an interval that both gold models have."""
    values: dict[str, dict[str, float]] = {"gold": {}, SECOND_GOLD: {}}
    for score in scores:
        if score.role in values and score.value is not None and score.unit not in WITHOUT_INTERVAL:
            values[score.role].setdefault(score.name, score.value)
    return {
        name: margin(value, values[SECOND_GOLD][name])
        for name, value in values["gold"].items()
        if name in values[SECOND_GOLD]
    }
