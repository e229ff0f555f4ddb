"""Intervals over examples, at 95 % by default: means, shares, AUCs and harmonic means. Never NaN.

They cover the choice of examples, not the seed of training. Where the sample itself shows no
spread (all hits, a perfect AUC), the interval still has the width that its size allows.

Examples of one group (an author's answers) resemble each other. Where `groups` names them, groups are the units that
vary: the variance is that of group totals, with Student's t for the number of groups. It is never below the variance
over examples, since the totals of few groups may agree by chance. `evaluation.groups` makes the names.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

Z = 1.959963984540054
LEVEL = 0.95
RESAMPLES, GROUP_RESAMPLES = 1999, 999
ROUNDING = 1e-12  # relative deviation of values that count as equal where they are known by sums alone
UNSEEN = 0.5
"""Sum of squares that is added to the members' differences of two AUCs, as of two examples half a placement away:
among few examples the one that differs much may be missing."""
BCA_LIMIT = 3000


class Interval(NamedTuple):
    """A value with the ends of its interval, in the value's own unit."""

    value: float
    low: float
    high: float


class Spread(NamedTuple):
    """The variance of a mean, its degrees of freedom, and its ratio to the variance of independent examples (>= 1)."""

    variance: float
    degrees: float
    design_effect: float = 1.0


def spread_of_mean(values: np.ndarray, groups: np.ndarray | None = None) -> Spread:
    """The spread of the mean of [N] values (0 for one value); groups: [N] names, clustered where there are several.

    Clustered: G/(G - 1) times the sum of squared group totals of the deviations, over N squared, with G - 1 degrees.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return Spread(0.0, 1)
    lead = x - x.mean()
    single = float(lead @ lead) / (len(x) * (len(x) - 1))
    if groups is None:
        return Spread(single, len(x) - 1)
    names, group_N = np.unique(groups, return_inverse=True)
    count = len(names)
    if count in (1, len(x)):
        return Spread(single, len(x) - 1)
    totals = np.bincount(group_N, weights=lead)
    clustered = float(totals @ totals) * count / (count - 1) / len(x) ** 2
    return Spread(max(single, clustered), count - 1, max(1.0, clustered / single) if single else 1.0)


def mean(
    values: np.ndarray,
    lowest: float = -np.inf,
    highest: float = np.inf,
    *,
    groups: np.ndarray | None = None,
    level: float = LEVEL,
) -> Interval:
    """The mean of [N] finite values with Student's t interval, cut at the ends of their range.

    Cutting loses no coverage, since the true mean lies in the range. groups: [N] names, where examples are clustered.
    One value, or N equal ones, has no spread to estimate from: with a finite range the interval is
    Wilson's for that mean (the widest that any values in the range could give), else the value.
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 1 or np.ptp(x) == 0:
        return _without_spread(float(x[0]), len(x), lowest, highest, level)
    return _around(float(x.mean()), spread_of_mean(x, groups), lowest, highest, level)


def mean_of_sums(count: int, centre: float, squares: float, lowest: float, highest: float) -> Interval:
    """`mean` of values that are known by their count, mean and sum of squared deviations from it."""
    if count == 1 or squares <= count * (ROUNDING * centre) ** 2:
        return _without_spread(centre, count, lowest, highest, LEVEL)
    return _around(centre, Spread(squares / (count * (count - 1)), count - 1), lowest, highest, LEVEL)


def _without_spread(centre: float, count: int, lowest: float, highest: float, level: float) -> Interval:
    """The mean of equal values: Wilson's interval for it within a finite range, else the value."""
    if not np.isfinite(width := highest - lowest):
        return Interval(centre, centre, centre)
    _, low, high = share((centre - lowest) / width * count, count, level)
    return Interval(centre, lowest + width * low, lowest + width * high)


def _around(centre: float, spread: Spread, lowest: float, highest: float, level: float) -> Interval:
    """Student's t interval around a mean, cut at the ends of its range."""
    half = float(special.stdtrit(spread.degrees, 0.5 + level / 2)) * spread.variance**0.5
    return Interval(centre, min(centre, max(lowest, centre - half)), max(centre, min(highest, centre + half)))


def share(hits: float, n: float, level: float = LEVEL) -> Interval:
    """`hits` of `n` with Wilson's score interval (Wilson 1927)."""
    z = float(special.ndtri(0.5 + level / 2))
    p = min(1.0, max(0.0, hits / n))
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return Interval(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def proportion(hit_N: np.ndarray, *, groups: np.ndarray | None = None, level: float = LEVEL) -> Interval:
    """The share of [N] hits (0 or 1) with Wilson's interval; groups: [N] names, where examples are clustered.

    Clustered, N is replaced by the number of independent examples that would vary as much, corrected for the degrees
    of freedom (Korn and Graubard 1998). All hits or none show no clustering: then N counts.
    """
    hits, n = float(np.sum(hit_N)), len(hit_N)
    if groups is None or hits in (0, n):
        return share(hits, n, level)
    spread = spread_of_mean(hit_N, groups)
    wider = special.stdtrit(spread.degrees, 0.5 + level / 2) / special.stdtrit(n - 1, 0.5 + level / 2)
    independent = n / (spread.design_effect * float(wider) ** 2)
    return share(hits / n * independent, independent, level)


def placements(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each score among the scores of the other side; a tie counts as half.

    Returns [M], the share of `others` that each member beats, and [N], the share of `members` that
    beat each other. Both average to the AUC. O((M + N) log(M + N)) (Sun and Xu 2014).
    """
    first, second = np.sort(members), np.sort(others)
    above = np.searchsorted(second, members, "left") + np.searchsorted(second, members, "right")
    below = np.searchsorted(first, others, "left") + np.searchsorted(first, others, "right")
    return above / (2 * len(second)), 1 - below / (2 * len(first))


def auc(
    members: np.ndarray,
    others: np.ndarray,
    *,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
    level: float = LEVEL,
) -> Interval:
    """The chance that a member's score exceeds another's, with an interval that covers near 0 and 1 as well.

    members [M] and others [N] are scores, higher = member; a tie is half a win. groups: their names, [M] and [N].

    The interval is the wider, at each end, of two: DeLong's variance (1988; clustered: Obuchowski's, 1997) on the logit
    scale with Student's t and Welch's degrees, and Newcombe's method 5 (2006). The first follows the data's own
    variance, but near 0 and 1 that is estimated too small where the two sides differ in shape; the second has the
    variance of a model that depends on the AUC alone.

    At 0 or 1 the low end is exact: AUC a separates min(M, N) independent pairs with a chance of at
    most a^min(M, N). Where the variance is otherwise zero or cannot be estimated, it is Wilson's
    for min(M, N), because no AUC has a variance above A (1 - A) / min(M, N) (Birnbaum, Klose 1957).
    """
    above, below = placements(np.asarray(members, dtype=float), np.asarray(others, dtype=float))
    value, pairs = float(above.mean()), min(len(above), len(below))
    if value in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / pairs)
        return Interval(value, bound, 1.0) if value else Interval(value, 0.0, 1 - bound)
    if pairs == 1:
        return share(value * pairs, pairs, level)
    first, second = groups or (None, None)
    spread = _spread_of_auc(above, below, first, second)
    if spread.variance <= 1e-18:
        return share(value * pairs, pairs, level)
    low, high = _logit_ends(value, spread, level)
    model = _newcombe(value, len(above) / spread.design_effect, len(below) / spread.design_effect, level)
    return Interval(value, min(low, model[0]), max(high, model[1]))


def _spread_of_auc(above: np.ndarray, below: np.ndarray, first: np.ndarray | None, second: np.ndarray | None) -> Spread:
    """The spread of the AUC from [M] and [N] placements; first, second: their groups, of which some may be on both
    sides."""
    sides = spread_of_mean(above, first), spread_of_mean(below, second)
    single = spread_of_mean(above).variance + spread_of_mean(below).variance
    variance = sum(side.variance for side in sides) + 2 * _covariance(above, below, first, second)
    variance = max(single, variance)
    return Spread(variance, _welch(sides), variance / single if single else 1.0)


def _covariance(above: np.ndarray, below: np.ndarray, first: np.ndarray | None, second: np.ndarray | None) -> float:
    """The covariance of the two sides' parts of the AUC, from groups that have examples on both (Obuchowski 1997)."""
    if first is None or second is None or not len(both := np.intersect1d(first, second)):
        return 0.0
    count = len(np.union1d(first, second))
    totals = [
        np.array([(side[names == name] - side.mean()).sum() / len(side) for name in both])
        for side, names in ((above, first), (below, second))
    ]
    return float(totals[0] @ totals[1]) * count / max(1, count - 1)


def _logit_ends(value: float, spread: Spread, level: float) -> tuple[float, float]:
    """The ends of a t interval of a value within 0 and 1, on the logit scale (the delta method)."""
    half = float(special.stdtrit(spread.degrees, 0.5 + level / 2)) * spread.variance**0.5 / (value * (1 - value))
    low, high = (float(special.expit(special.logit(value) + side)) for side in (-half, half))
    return min(low, value), max(high, value)


def _newcombe(value: float, m: float, n: float, level: float) -> tuple[float, float]:
    """The ends of Newcombe's method 5 for an AUC within 0 and 1 (2006, doi:10.1002/sim.2324): the AUCs whose own
    standard error, by Hanley and McNeil's formula for exponential scores of (m + n) / 2 a side, is just reached."""
    from scipy import optimize

    z, more = float(special.ndtri(0.5 + level / 2)), (m + n) / 2 - 1

    def excess(a: float) -> float:
        variance = a * (1 - a) * (1 + more * (1 - a) / (2 - a) + more * a / (1 + a)) / (m * n)
        return (a - value) ** 2 - z**2 * variance

    return float(optimize.brentq(excess, 0.0, value)), float(optimize.brentq(excess, value, 1.0))


def auc_difference(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    *,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
    level: float = LEVEL,
) -> Interval:
    """The difference of two AUCs of the same M members and N others (DeLong 1988, for correlated curves).

    first, second: the placements ([M], [N]) under each. groups: as in `auc`. Student's t interval with the variance of
    the paired differences, which is small where the same examples are hard for both, and with that of `UNSEEN`.
    """
    above, below = (one - other for one, other in zip(first, second, strict=True))
    value, pairs = float(above.mean()), min(len(above), len(below))
    spread = _spread_of_auc(above, below, *(groups or (None, None)))
    degrees = spread.degrees if spread.variance > 1e-18 else max(1, pairs - 1)
    half = float(special.stdtrit(degrees, 0.5 + level / 2)) * (spread.variance + UNSEEN / len(above) ** 2) ** 0.5
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def auc_by_example(
    members: np.ndarray, others: np.ndarray, *, groups: np.ndarray | None = None, level: float = LEVEL
) -> Interval:
    """AUC of scores [M, N] against [K, N], the N examples a sample and the models fixed (Obuchowski 1997).

    The scores of one example are correlated, on both sides, so examples are the units (groups: [N] names, where they
    are clustered): an example's lead is the contribution of its members and its others to the AUC. DeLong's interval
    over all M N and K N scores would be far too narrow. On the logit scale, as in `auc`.
    """
    above, below = placements(np.ravel(members).astype(float), np.ravel(others).astype(float))
    value, n = float(above.mean()), members.shape[1]
    lead_N = above.reshape(members.shape).mean(axis=0) + below.reshape(others.shape).mean(axis=0) - 2 * value
    if n < 2 or not lead_N.any() or value in (0.0, 1.0):
        return share(value * n, n, level)
    return Interval(value, *_logit_ends(value, spread_of_mean(lead_N, groups), level))


def bca(statistic: Callable[..., np.ndarray], *sizes: int) -> Interval:
    """A statistic of one or more independent samples, with the BCa bootstrap (Efron 1987).

    `statistic` takes, for each sample, an index array [..., n] of drawn rows, and returns [...].
    Above 3,000 rows the percentiles are taken as they are (the corrections vanish as n grows). A
    statistic that does not vary gives an interval without width, which the caller must widen. The
    draws are seeded: the same data give the same interval.
    """
    rows = [np.arange(size) for size in sizes]
    value = float(statistic(*rows))
    if max(sizes) == 1:
        return Interval(value, value, value)
    from scipy import stats  # half a second, and plans start here

    def statistic_of(*indices: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(*(index.astype(np.intp) for index in indices))

    # SciPy refuses samples of one row; two copies of it are equivalent.
    samples = [row if len(row) > 1 else np.zeros(2, dtype=np.intp) for row in rows]
    methods = ["percentile"] if max(sizes) > BCA_LIMIT else ["BCa", "percentile"]
    for method in methods:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = stats.bootstrap(
                samples,
                statistic_of,
                n_resamples=RESAMPLES,
                method=method,
                vectorized=True,
                axis=-1,
                batch=max(1, 1_000_000 // max(sizes)),
                random_state=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return Interval(value, min(value, float(found.low)), max(value, float(found.high)))
    return Interval(value, value, value)


def bootstrap_by_group(statistic: Callable[..., np.ndarray], *groups: np.ndarray) -> Interval:
    """A statistic of independent samples whose groups are drawn whole: percentiles of 999 seeded draws.

    groups: for each sample, [n] names. `statistic` takes, for each sample, an array of drawn rows. A statistic that
    does not vary gives an interval without width, which the caller must widen.
    """
    draw = np.random.default_rng(0)
    members = [[np.flatnonzero(names == name) for name in np.unique(names)] for names in groups]

    def draw_groups(rows: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([rows[i] for i in draw.integers(0, len(rows), size=len(rows))])

    value = float(statistic(*(np.arange(len(names)) for names in groups)))
    found = [float(statistic(*map(draw_groups, members))) for _ in range(GROUP_RESAMPLES)]
    low, high = (float(end) for end in np.quantile(found, [0.025, 0.975]))
    return Interval(value, min(value, low), max(value, high))


def harmonic_mean(parts: np.ndarray) -> np.ndarray:
    """The harmonic mean over the last axis of [..., P] non-negative values; 0 where one of them is 0."""
    parts = np.asarray(parts, dtype=float)
    zero = (parts <= 0).any(axis=-1)
    inverse = (1 / np.where(parts <= 0, 1, parts)).mean(axis=-1)
    return np.where(zero, 0.0, 1 / inverse)


def harmonic(*blocks: np.ndarray, groups: Sequence[np.ndarray | None] = ()) -> Interval:
    """The harmonic mean of the column means of blocks [N_i, P_i] of shares, with a BCa interval.

    A block holds the parts that are measured on one sample of examples (its rows are resampled
    together); masked entries do not count. groups: for each block, [N_i] names or None; clustered, the interval is the
    delta method's with Student's t. Where the sample has no spread, the ends are the harmonic
    means of the ends of the columns' own intervals.
    """
    masked = [np.ma.masked_array(block, dtype=float) for block in blocks]
    filled = [block.filled(0.0) for block in masked]
    counts = [(~np.ma.getmaskarray(block)).astype(float) for block in masked]

    def statistic(*rows: np.ndarray) -> np.ndarray:
        means = [
            x[row].sum(axis=-2) / np.maximum(1, count[row].sum(axis=-2))
            for x, count, row in zip(filled, counts, rows, strict=True)
        ]
        return harmonic_mean(np.concatenate(_same_shape(means), axis=-1))

    if any(names is not None for names in groups):
        found = _harmonic_by_group(filled, counts, groups)
    else:
        found = bca(statistic, *(len(block) for block in blocks))
    if found.low < found.high:
        return found
    ends = [mean(column.compressed(), 0.0, 1.0) for block in masked for column in block.T]
    low = float(harmonic_mean(np.array([end.low for end in ends])))
    high = float(harmonic_mean(np.array([end.high for end in ends])))
    return Interval(found.value, min(low, found.value), max(high, found.value))


def _harmonic_by_group(
    filled: Sequence[np.ndarray], counts: Sequence[np.ndarray], groups: Sequence[np.ndarray | None]
) -> Interval:
    """The delta method: an example's lead is the sum over its parts of H² / (P m²) times its deviation from m."""
    means = [x.sum(axis=0) / np.maximum(1, count.sum(axis=0)) for x, count in zip(filled, counts, strict=True)]
    value, parts = float(harmonic_mean(np.concatenate(means))), sum(map(len, means))
    if not value:
        return Interval(value, value, value)
    spreads = []
    for x, count, m, names in zip(filled, counts, means, groups, strict=True):
        lead = (x - m) * count * len(x) / np.maximum(1, count.sum(axis=0)) * value**2 / (parts * m**2)
        spreads += [spread_of_mean(lead.sum(axis=1), names)] if len(x) > 1 else []
    variance = sum(spread.variance for spread in spreads)
    if not variance:
        return Interval(value, value, value)
    half = float(special.stdtrit(_welch(spreads), 0.975)) * variance**0.5
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def _welch(spreads: Sequence[Spread]) -> float:
    """Welch's degrees of freedom for a sum of independent means."""
    total = sum(spread.variance for spread in spreads)
    return total**2 / max(1e-300, sum(spread.variance**2 / spread.degrees for spread in spreads))


def _same_shape(means: list[np.ndarray]) -> list[np.ndarray]:
    """Column means [..., P_i] with their leading axes broadcast against each other."""
    lead = np.broadcast_shapes(*(x.shape[:-1] for x in means))
    return [np.broadcast_to(x, (*lead, x.shape[-1])) for x in means]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Interval | None:
    """Spearman's rank correlation of two [N]; None for fewer than four pairs, or where either side is constant.

    The interval is by Fisher's z with Fieller's variance (doi:10.1093/biomet/44.3-4.470). A perfect order has no
    variance of its own: its lower end is that of an order with one pair of neighbours swapped.
    """
    n = len(x)
    if n < 4 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    from scipy import stats

    rho = float(stats.spearmanr(x, y).statistic)
    most = 1 - 12 / (n * (n**2 - 1))
    z, half = float(np.arctanh(np.clip(rho, -most, most))), Z * (1.06 / (n - 3)) ** 0.5
    return Interval(rho, min(rho, float(np.tanh(z - half))), max(rho, float(np.tanh(z + half))))
