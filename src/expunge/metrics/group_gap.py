"""Gap between groups."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric
from expunge.metrics._groups import bootstrap, figure, groups, permutation_p, wilson_margin

CARD = MetricCard(
    "Gap between groups",
    paper="arXiv:2007.10306",
    equation="largest difference between groups",
    side="alignment",
    better="lower",
    unit="share",
    needs={"split": {"nll"}, "before.split": {"nll"}},
    splits=("retain", "holdout", "test"),
    means="How much more the worst-hit group of a split lost than the best-off one; above 0 by chance alone, so check "
    "its p-value, and the groups' own figures before blaming the method.",
)


def gap_from(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Largest less smallest change of utility, [...] in 0-2, of the groups' mean utilities [..., G]."""
    change = after - before
    return np.asarray(change.max(axis=-1) - change.min(axis=-1))


def group_gap() -> Metric:
    """Change of utility of the best-off group less that of the worst-hit one.

    Utility is the answer's probability (for a classifier: accuracy). Groups come from the key `group`: 2 to 20 of at
    least 5 examples. BCa bootstrap over examples within groups.
    """

    def values(split: Readout, before_split: Readout) -> Figure:
        found = groups(before_split, split)
        interval = bootstrap(found, gap_from)
        if interval.low == interval.high:
            interval = interval._replace(
                low=max(0.0, interval.value - wilson_margin(found)), high=interval.value + wilson_margin(found)
            )
        change = np.array([now.mean() - then.mean() for then, now in zip(found.before, found.after, strict=True)])
        return figure(found, interval, permutation_p(found, gap_from, more=True), change, "change of utility")

    return values
