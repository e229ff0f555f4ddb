"""Margins of the comparisons with gold: two retrainings differ too, by the seed alone."""

from __future__ import annotations

from collections.abc import Iterable

from expunge.evaluation.scores import WITHOUT_INTERVAL, Score
from expunge.ledger.evidence import SECOND_GOLD

LEAST = 0.1
"""Margin where there is no second gold, and the least of all."""
MOST = 0.2
"""The largest margin of a share or an AUC: golds that differ by more than half of it are no yardstick to pass by."""
FACTOR = 2.0
"""Margin in units of the difference between two gold models."""


def margin(gold: float | None, second: float | None) -> float:
    """The difference to gold up to which two models count as alike, in the score's own unit."""
    if gold is None or second is None:
        return LEAST
    return max(LEAST, FACTOR * abs(gold - second))


def margins(scores: Iterable[Score]) -> dict[str, float]:
    """Score -> margin, of the scores with an interval that both gold models have."""
    both: dict[str, dict[str, Score]] = {"gold": {}, SECOND_GOLD: {}}
    for score in scores:
        if score.role in both and score.value is not None and score.unit not in WITHOUT_INTERVAL:
            both[score.role].setdefault(score.name, score)
    found = {
        name: margin(one.value, both[SECOND_GOLD][name].value)
        for name, one in both["gold"].items()
        if name in both[SECOND_GOLD]
    }
    capped = {name for name, one in both["gold"].items() if one.unit in ("share", "auc")}
    return {name: min(MOST, value) if name in capped else value for name, value in found.items()}
