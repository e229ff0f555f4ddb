"""Margins of the comparisons with gold: two retrainings differ too, by the seed alone."""

from __future__ import annotations

from collections.abc import Iterable

from expunge.evaluation.scores import RANGES, WITHOUT_INTERVAL, Score
from expunge.ledger.evidence import SECOND_GOLD

LEAST = 0.1
"""Margin where there is no second gold, and the least of all."""
MOST_SHARE = 0.2
"""The largest margin of a share or an AUC: golds that differ by more than half of it are no yardstick to pass by."""
FACTOR = 2.0
"""Margin in units of the difference between two gold models."""


def margin(gold: float | None, second: float | None) -> float:
    """The difference to gold up to which two models count as alike, in the score's own unit."""
    if gold is None or second is None:
        return LEAST
    return max(LEAST, FACTOR * abs(gold - second))


def share_margin(gold: float | None, second: float | None) -> float:
    """The margin of a share or an AUC."""
    return min(MOST_SHARE, margin(gold, second))


def margins(scores: Iterable[Score]) -> dict[str, float]:
    """Score -> margin, of the scores with an interval that both gold models have."""
    golds: dict[str, Score] = {}
    found: dict[str, float] = {}
    for score in scores:
        if score.value is None or score.unit in WITHOUT_INTERVAL:
            continue
        if score.role == "gold":
            golds.setdefault(score.name, score)
        elif score.role == SECOND_GOLD and score.name in golds and score.name not in found:
            rule = share_margin if score.unit in RANGES else margin
            found[score.name] = rule(golds[score.name].value, score.value)
    return found
