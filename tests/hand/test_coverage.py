"""The intervals cover: 2,000 draws of members' and others' scores, on a grid of AUCs and sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from expunge.evaluation import intervals

DRAWS = 2000
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SIZES = ((200, 200), (400, 200), (200, 1000))


def covered(auc: float, sizes: tuple[int, int], draws: int, seed: int) -> float:
    """The share of draws whose DeLong interval holds the true AUC of two normals a shift apart."""
    draw = np.random.default_rng(seed)
    shift = 2**0.5 * stats.norm.ppf(auc)
    hits = 0
    for _ in range(draws):
        found = intervals.auc(draw.normal(shift, 1, sizes[0]), draw.normal(0, 1, sizes[1]))
        hits += found.low <= auc <= found.high
    return hits / draws


def test_auc_intervals_cover_on_average_over_the_grid() -> None:
    """95 ± 2 % over the grid, n >= 200 a side, 2,000 draws in all; at each point no worse than 90 %."""
    grid = list(itertools.product(AUCS, SIZES))
    shares = [covered(auc, sizes, DRAWS // len(grid) + 1, seed) for seed, (auc, sizes) in enumerate(grid)]
    assert 0.93 <= float(np.mean(shares)) <= 0.97
    assert min(shares) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("auc", AUCS)
def test_auc_intervals_cover_at_each_auc(auc: float) -> None:
    assert 0.93 <= covered(auc, (200, 200), DRAWS, 7) <= 0.97


def test_the_simulation_can_fail() -> None:
    """A narrower interval, as of twice as many examples, is seen to cover too little."""
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = intervals.auc(draw.normal(0, 1, 200), draw.normal(0, 1, 200))
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
