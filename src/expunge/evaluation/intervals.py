"""95 % intervals over examples: means, shares, AUCs and harmonic means. Never NaN.

They cover the choice of examples, not the seed of training. Where the sample itself shows no
spread (all hits, a perfect AUC), the interval still has the width that its size allows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

Z = 1.959963984540054
RESAMPLES = 1999
BCA_LIMIT = 3000


class Interval(NamedTuple):
    """A value with the ends of its 95 % interval, in the value's own unit."""

    value: float
    low: float
    high: float


def mean(values: np.ndarray, lowest: float = -np.inf, highest: float = np.inf) -> Interval:
    """The mean of [N] finite values with Student's t interval, cut at the ends of their range.

    One value, or N equal ones, has no spread to estimate from: with a finite range the interval is
    Wilson's for that mean (the widest that any values in the range could give), else the value.
    """
    x = np.asarray(values, dtype=float)
    centre = float(x.mean())
    if len(x) == 1 or np.ptp(x) == 0:
        centre = float(x[0])
        width = highest - lowest
        if not np.isfinite(width):
            return Interval(centre, centre, centre)
        inner = share((centre - lowest) / width * len(x), len(x))
        return Interval(centre, lowest + width * inner.low, lowest + width * inner.high)
    half = float(special.stdtrit(len(x) - 1, 0.975)) * float(x.std(ddof=1)) / len(x) ** 0.5
    return Interval(centre, max(lowest, centre - half), min(highest, centre + half))


def share(hits: float, n: float) -> Interval:
    """`hits` of `n` with Wilson's score interval (Wilson 1927)."""
    p = min(1.0, max(0.0, hits / n))
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 0.5
    return Interval(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def placements(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each score among the scores of the other side; a tie counts as half.

    Returns [M], the share of `others` that each member beats, and [N], the share of `members` that
    beat each other. Both average to the AUC. O((M + N) log(M + N)) (Sun and Xu 2014).
    """
    first, second = np.sort(members), np.sort(others)
    above = np.searchsorted(second, members, "left") + np.searchsorted(second, members, "right")
    below = np.searchsorted(first, others, "left") + np.searchsorted(first, others, "right")
    return above / (2 * len(second)), 1 - below / (2 * len(first))


def auc(members: np.ndarray, others: np.ndarray) -> Interval:
    """The chance that a member's score exceeds another's, with DeLong's interval (1988).

    members [M] and others [N] are scores, higher = member; a tie is half a win.

    At 0 or 1 the interval is exact: AUC a separates min(M, N) independent pairs with a chance of at
    most a^min(M, N). Where the variance is otherwise zero or cannot be estimated, it is Wilson's
    for min(M, N), because no AUC has a variance above A (1 - A) / min(M, N) (Birnbaum, Klose 1957).
    """
    above, below = placements(np.asarray(members, dtype=float), np.asarray(others, dtype=float))
    value, pairs = float(above.mean()), min(len(above), len(below))
    if value in (0.0, 1.0):
        bound = 0.025 ** (1 / pairs)
        return Interval(value, bound, 1.0) if value else Interval(value, 0.0, 1 - bound)
    variance = 0.0
    if pairs > 1:
        variance = float(above.var(ddof=1)) / len(above) + float(below.var(ddof=1)) / len(below)
    if variance <= 1e-18:
        return share(value * pairs, pairs)
    half = Z * variance**0.5
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def auc_by_example(members: np.ndarray, others: np.ndarray) -> Interval:
    """AUC of scores [M, N] against [K, N], the N examples a sample and the models fixed (Obuchowski 1997).

    The scores of one example are correlated, on both sides, so examples are the units: an example's lead is the
    contribution of its members and its others to the AUC. DeLong's interval over all M N and K N scores would be far
    too narrow.
    """
    above, below = placements(np.ravel(members).astype(float), np.ravel(others).astype(float))
    value, n = float(above.mean()), members.shape[1]
    lead_N = above.reshape(members.shape).mean(axis=0) + below.reshape(others.shape).mean(axis=0) - 2 * value
    if n < 2 or not lead_N.any():
        return share(value * n, n)
    half = float(special.stdtrit(n - 1, 0.975)) * float((lead_N**2).sum() / (n * (n - 1))) ** 0.5
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


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

    def drawn(*indices: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(*(index.astype(np.intp) for index in indices))

    # SciPy refuses samples of one row; two copies of it are equivalent.
    samples = [row if len(row) > 1 else np.zeros(2, dtype=np.intp) for row in rows]
    methods = ["percentile"] if max(sizes) > BCA_LIMIT else ["BCa", "percentile"]
    for method in methods:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = stats.bootstrap(
                samples,
                drawn,
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


def harmonic_mean(parts: np.ndarray) -> np.ndarray:
    """The harmonic mean over the last axis of [..., P] non-negative values; 0 where one of them is 0."""
    parts = np.asarray(parts, dtype=float)
    zero = (parts <= 0).any(axis=-1)
    inverse = (1 / np.where(parts <= 0, 1, parts)).mean(axis=-1)
    return np.where(zero, 0.0, 1 / inverse)


def harmonic(*blocks: np.ndarray) -> Interval:
    """The harmonic mean of the column means of blocks [N_i, P_i] of shares, with a BCa interval.

    A block holds the parts that are measured on one sample of examples (its rows are resampled
    together); masked entries do not count. Where no resample differs, the ends are the harmonic
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

    found = bca(statistic, *(len(block) for block in blocks))
    if found.low < found.high:
        return found
    ends = [mean(column.compressed(), 0.0, 1.0) for block in masked for column in block.T]
    low = float(harmonic_mean(np.array([end.low for end in ends])))
    high = float(harmonic_mean(np.array([end.high for end in ends])))
    return Interval(found.value, min(low, found.value), max(high, found.value))


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
    rho = float(stats.spearmanr(x, y).statistic)
    most = 1 - 12 / (n * (n**2 - 1))
    z, half = float(np.arctanh(np.clip(rho, -most, most))), Z * (1.06 / (n - 3)) ** 0.5
    return Interval(rho, min(rho, float(np.tanh(z - half))), max(rho, float(np.tanh(z + half))))
