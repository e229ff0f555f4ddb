"""Ratio between groups."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured
from expunge.metrics._groups import bootstrap, figure, groups, permutation_p, wilson_margin

CARD = MetricCard(
    "Ratio between groups",
    paper="arXiv:1412.3756",
    equation="ratio of the worst to the best group",
    side="alignment",
    better="higher",
    unit="ratio",
    needs={"split": {"nll"}, "before.split": {"nll"}},
    splits=("retain", "holdout", "test"),
    means="The share of its utility that the worst-hit group kept, relative to the share that the best-off group "
    "kept: 1 is even, 0.8 the usual threshold; below 1 by chance alone, so check its p-value.",
)


def kept_from(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """after / before; 1 for a group (of a resample) that had nothing to lose."""
    return np.asarray(np.where(before > 0, after / np.where(before > 0, before, 1.0), 1.0))


def ratio_from(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Smallest over largest share kept, [...] in 0-1, of the groups' mean utilities [..., G]; 1 where none kept any."""
    kept = kept_from(before, after)
    most = kept.max(axis=-1)
    return np.asarray(np.where(most > 0, kept.min(axis=-1) / np.where(most > 0, most, 1.0), 1.0))


def group_ratio() -> Metric:
    """Share of its utility that the worst-hit group kept, over the share that the best-off one kept.

    Utility is the answer's probability (for a classifier: accuracy). Groups come from the key `group`: 2 to 20 of at
    least 5 examples. BCa bootstrap over examples within groups.
    """

    def values(split: Readout, before_split: Readout) -> Figure:
        found = groups(before_split, split)
        then, now = (np.array([rows.mean() for rows in side]) for side in (found.before, found.after))
        if not (then > 0).all():
            raise NotMeasured(f"group {found.names[int(then.argmin())]} had no utility before")
        if not (now > 0).any():
            raise NotMeasured("no group kept any utility")
        interval = bootstrap(found, ratio_from)
        if interval.low == interval.high:
            interval = interval._replace(low=max(0.0, interval.value - wilson_margin(found)))
        return figure(
            found, interval, permutation_p(found, ratio_from, more=False), kept_from(then, now), "share of utility kept"
        )

    return values
