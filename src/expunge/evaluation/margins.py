"""Margins of the comparisons with gold by figure: two retrainings differ too, by the seed alone."""

from __future__ import annotations

from collections.abc import Iterable

from expunge.evaluation.comparison import allowed_margin
from expunge.evaluation.scores import WITHOUT_INTERVAL, Score
from expunge.ledger.evidence import SECOND_GOLD


def margins(scores: Iterable[Score]) -> dict[str, float]:
    """Score -> margin in its own unit, of the scores with an interval that both gold models have."""
    values: dict[str, dict[str, float]] = {"gold": {}, SECOND_GOLD: {}}
    for score in scores:
        if score.role in values and score.value is not None and score.unit not in WITHOUT_INTERVAL:
            values[score.role].setdefault(score.name, score.value)
    second = values[SECOND_GOLD]
    return {name: allowed_margin(second[name] - value) for name, value in values["gold"].items() if name in second}
