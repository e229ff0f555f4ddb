"""The utility of each group of examples, before and after, for the fairness metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from expunge.evaluation import intervals
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.intervals import Interval, Z
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, NotMeasured
from expunge.metrics.probability import probability_from

MIN_GROUPS, MAX_GROUPS, MIN_EXAMPLES = 2, 20, 5
SHUFFLES = 999

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""([..., G] mean utility before, [..., G] after) -> [...]."""


@dataclass(frozen=True)
class Groups:
    """Utilities by group.

    names: [G]. before, after: G arrays [n] of utilities in 0-1 on the same examples. omitted: a remark on small groups
    that were left out, or empty.
    """

    names: list[str]
    before: list[np.ndarray]
    after: list[np.ndarray]
    omitted: str

    @property
    def n(self) -> int:
        return sum(len(rows) for rows in self.after)


def utility(readout: Readout) -> np.ndarray:
    """[N] in 0-1: for a classifier, whether the most likely class is the label; else the answer's probability."""
    if readout.logp_NC is not None and readout.labels_N is not None:
        return np.asarray(readout.logp_NC.argmax(axis=1) == readout.labels_N, dtype=float)
    return probability_from(mean_nll(readout))


def groups(before: Readout, after: Readout) -> Groups:
    """The groups of a split by the key `group` of its examples, by name. Raises NotMeasured for unfit ones."""
    then, now = np.ma.masked_array(utility(before)), np.ma.masked_array(utility(after))
    counts = ~(np.ma.getmaskarray(then) | np.ma.getmaskarray(now))
    places: dict[str, list[int]] = {}
    for i, row in enumerate(after.examples):
        if row.get("group") is not None and counts[i]:
            places.setdefault(str(row["group"]), []).append(i)
    if not places:
        raise NotMeasured("no examples have a group")
    kept = {name: places[name] for name in sorted(places) if len(places[name]) >= MIN_EXAMPLES}
    if not MIN_GROUPS <= len(kept) or len(places) > MAX_GROUPS:
        raise NotMeasured(
            f"needs {MIN_GROUPS} to {MAX_GROUPS} groups of at least {MIN_EXAMPLES} examples; there are {len(places)}, "
            f"of which {len(kept)} are that large"
        )
    rows = list(kept.values())
    omitted = f"; {len(places) - len(kept)} groups of fewer than {MIN_EXAMPLES} examples left out"
    found = Groups(
        list(kept),
        [then.data[i] for i in rows],
        [now.data[i] for i in rows],
        omitted if len(places) > len(kept) else "",
    )
    if not np.isfinite(np.concatenate([*found.before, *found.after])).all():
        raise NotMeasured("the model has diverged")
    return found


def bootstrap(found: Groups, statistic: Statistic) -> Interval:
    """The statistic with its BCa bootstrap over examples, drawn within each group; before and after stay paired."""

    def statistic_of(*rows: np.ndarray) -> np.ndarray:
        means = [
            [x[row].mean(axis=-1) for x, row in zip(side, rows, strict=True)] for side in (found.before, found.after)
        ]
        then, now = (np.stack(np.broadcast_arrays(*side), axis=-1) for side in means)
        return statistic(then, now)

    return intervals.bca(statistic_of, *(len(rows) for rows in found.after))


def permutation_p(found: Groups, statistic: Statistic, more: bool) -> float:
    """p-value: how often random groups of these sizes differ as much. more: a larger statistic is a larger difference.

    The largest gap between several groups is above 0 by chance alone, and so is its interval; the p-value accounts for
    that.
    """
    then, now = np.concatenate(found.before), np.concatenate(found.after)
    sizes = np.array([len(rows) for rows in found.after])
    starts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(0)

    def of(order: np.ndarray) -> float:
        return float(statistic(*(np.add.reduceat(x[order], starts) / sizes for x in (then, now))))

    whole = np.arange(len(then))
    sign, bar = (1, of(whole)) if more else (-1, of(whole))
    hits = sum(sign * of(rng.permutation(whole)) >= sign * bar - 1e-12 for _ in range(SHUFFLES))
    return float((1 + hits) / (1 + SHUFFLES))


def wilson_margin(found: Groups) -> float:
    """Uncertainty of a group's mean where all its examples moved alike: Wilson's upper end for 0 of n."""
    return float(Z**2 / (min(len(rows) for rows in found.after) + Z**2))


def figure(found: Groups, interval: Interval, p: float, by: np.ndarray, words: str) -> Figure:
    """The figure, with the groups at both ends of `by` [G] and the p-value."""
    worst, best = int(by.argmin()), int(by.argmax())
    ends = f"worst {found.names[worst]} {by[worst]:+.3f}, best {found.names[best]} {by[best]:+.3f}"
    chance = f"random groups differ as much with p = {p:.3g}"
    why = f"{words}, {len(found.names)} groups: {ends}; {chance}{found.omitted}"
    return Figure(interval.value, interval.low, interval.high, found.n, why=why)
