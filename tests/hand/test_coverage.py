"""The intervals cover: draws of members' and others' scores, on a grid of AUCs, sizes, shapes and groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from expunge.evaluation import intervals

DRAWS = 2000
AUCS = (0.5, 0.8, 0.95, 0.98)
SIZES = ((24, 24), (48, 48), (48, 16), (200, 200))

Sides = tuple[np.ndarray, np.ndarray]


def normal(draw: np.random.Generator, auc: float, sizes: tuple[int, int]) -> Sides:
    """Two normals a shift apart."""
    return draw.normal(2**0.5 * stats.norm.ppf(auc), 1, sizes[0]), draw.normal(0, 1, sizes[1])


def unequal(draw: np.random.Generator, auc: float, sizes: tuple[int, int]) -> Sides:
    """Members three times as spread: where DeLong's variance is estimated too small."""
    return draw.normal(10**0.5 * stats.norm.ppf(auc), 3, sizes[0]), draw.normal(0, 1, sizes[1])


def narrow(draw: np.random.Generator, auc: float, sizes: tuple[int, int]) -> Sides:
    """Others three times as spread."""
    return tuple(-side for side in unequal(draw, auc, sizes[::-1]))[::-1]  # type: ignore[return-value]


def partial(draw: np.random.Generator, auc: float, sizes: tuple[int, int]) -> Sides:
    """A share 2 AUC - 1 of the members stands out, the rest does not at all."""
    return draw.normal(0, 1, sizes[0]) + 20 * (draw.random(sizes[0]) < 2 * auc - 1), draw.normal(0, 1, sizes[1])


def ties(draw: np.random.Generator, auc: float, sizes: tuple[int, int]) -> Sides:
    """Scores of 0 and 1 alone: P(1) is AUC for members and 1 - AUC for others."""
    return (draw.random(sizes[0]) < auc) * 1.0, (draw.random(sizes[1]) < 1 - auc) * 1.0


SHAPES = (normal, unequal, narrow, partial, ties)


def covered(
    shape: Callable[[np.random.Generator, float, tuple[int, int]], Sides],
    auc: float,
    sizes: tuple[int, int],
    draws: int,
) -> float:
    """The share of draws whose interval holds the true AUC."""
    draw = np.random.default_rng(0)
    found = [intervals.auc(*shape(draw, auc, sizes)) for _ in range(draws)]
    return float(np.mean([x.low <= auc <= x.high for x in found]))


@pytest.mark.parametrize(("sizes", "draws"), list(zip(SIZES, (200, 200, 200, 400), strict=True)))
def test_auc_intervals_cover_at_each_size(sizes: tuple[int, int], draws: int) -> None:
    """At least 93 % of the draws at each AUC, and not all of them."""
    shares = [covered(normal, auc, sizes, draws) for auc in AUCS]
    assert min(shares) >= 0.93 and np.mean(shares) < 0.995, shares


def test_auc_intervals_cover_where_delong_does_not() -> None:
    """Members three times as spread, AUC .98, 48 a side: DeLong's symmetric interval covers 77 %."""
    assert covered(unequal, 0.98, (48, 48), 300) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_auc_intervals_cover_whatever_the_shape(
    shape: Callable[[np.random.Generator, float, tuple[int, int]], Sides],
) -> None:
    for sizes in SIZES:
        for auc in AUCS:
            assert 0.93 <= covered(shape, auc, sizes, DRAWS), (auc, sizes)


ICC = 0.3


def clustered(draw: np.random.Generator, groups: int, of: int, icc: float = ICC) -> np.ndarray:
    """[groups * of] standard normals of which a share `icc` of the variance is the group's."""
    own, shared = draw.normal(0, (1 - icc) ** 0.5, (groups, of)), draw.normal(0, icc**0.5, (groups, 1))
    return np.ravel(own + shared)


def clustered_coverage(auc: float, groups: int, of: int, draws: int) -> tuple[float, float]:
    """The shares of draws whose AUC interval, clustered and not, holds the true AUC."""
    draw, hits = np.random.default_rng(0), np.zeros(2)
    names = np.repeat(np.arange(groups), of), groups + np.repeat(np.arange(groups), of)
    for _ in range(draws):
        members = clustered(draw, groups, of) + 2**0.5 * stats.norm.ppf(auc)
        others = clustered(draw, groups, of)
        for i, found in enumerate((intervals.auc(members, others, groups=names), intervals.auc(members, others))):
            hits[i] += found.low <= auc <= found.high
    return tuple(hits / draws)


@pytest.mark.parametrize("auc", [0.5, 0.8])
def test_clustered_auc_intervals_cover(auc: float) -> None:
    """12 groups of 12 a side, ICC 0.3: at least 93 % of 300 draws; without groups well below."""
    shares = clustered_coverage(auc, 12, 12, 300)
    assert shares[0] >= 0.93 and shares[1] < 0.8, shares


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "of"), [(4, 12), (12, 4), (12, 12), (24, 2)])
def test_clustered_auc_intervals_cover_at_each_size(groups: int, of: int) -> None:
    for auc in AUCS:
        assert 0.93 <= clustered_coverage(auc, groups, of, DRAWS)[0], auc


def test_clustered_means_and_shares_cover() -> None:
    """12 groups of 6, ICC 0.3, 500 draws: at least 93 %; without groups well below."""
    draw, hits = np.random.default_rng(1), np.zeros((2, 2))
    names, limit = np.repeat(np.arange(12), 6), float(stats.norm.ppf(0.7))
    for _ in range(500):
        x = clustered(draw, 12, 6)
        for i, groups in enumerate((names, None)):
            mean, share = intervals.mean(x, groups=groups), intervals.proportion((x > limit) * 1.0, groups=groups)
            hits[i] += [mean.low <= 0 <= mean.high, share.low <= 0.3 <= share.high]
    shares = hits / 500
    assert (shares[0] >= 0.93).all() and (shares[1] < 0.92).all(), shares


def test_the_simulation_can_fail() -> None:
    """A narrower interval, as of twice as many examples, is seen to cover too little."""
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = intervals.auc(draw.normal(0, 1, 100), draw.normal(0, 1, 100))
        half = (found.high - found.low) / 2 / 2**0.5
        hits += abs(found.value - 0.5) <= half
    assert hits / 400 < 0.93


def test_shares_and_means_cover() -> None:
    """Wilson's for shares and Student's for means of skewed values: 95 ± 3 % of 2,000 draws, n = 200."""
    draw = np.random.default_rng(3)
    for p in (0.05, 0.3, 0.5):
        found = [intervals.share(float(draw.binomial(200, p)), 200) for _ in range(DRAWS)]
        assert 0.92 <= np.mean([x.low <= p <= x.high for x in found]) <= 0.98
    means = [intervals.mean(draw.exponential(1.0, 200)) for _ in range(DRAWS)]
    assert 0.92 <= np.mean([x.low <= 1 <= x.high for x in means]) <= 0.98
