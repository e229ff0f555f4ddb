"""Intervals against worked values, and a small seeded simulation of their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expunge.evaluation import intervals


def test_mean_is_students_t() -> None:
    """1, 2, 3: mean 2, s = 1, se = 1/√3 = 0.57735, t(.975, 2) = 4.30265: 2 ± 2.48414."""
    found = intervals.mean(np.array([1.0, 2.0, 3.0]))
    assert found == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-5)


def test_mean_stays_in_its_range() -> None:
    """0, 1: mean .5, se = .5, t(.975, 1) = 12.7: the interval is cut to [0, 1]."""
    assert intervals.mean(np.array([0.0, 1.0]), 0.0, 1.0) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3, 0.3], [0.0] * 5, [1.0]])
def test_no_spread_never_gives_nan(values: list[float]) -> None:
    """Without a range: the value itself. With [0, 1]: Wilson's, as wide as the size allows."""
    assert intervals.mean(np.array(values)) == (values[0],) * 3
    value, low, high = intervals.mean(np.array(values), 0.0, 1.0)
    assert 0 <= low <= value <= high <= 1 and high - low > 0.2


def test_wilson() -> None:
    """8 of 10, z² = 3.8415: centre (.8 + .19207) / 1.38415 = .71674; half
    1.95996 / 1.38415 * √(.016 + .0096037) = 1.41601 * .160011 = .22658."""
    assert intervals.share(8, 10) == pytest.approx((0.8, 0.49016, 0.94332), abs=1e-4)


def test_wilson_at_the_ends() -> None:
    """0 of n: [0, z² / (n + z²)]; n = 10: 3.84146 / 13.84146 = .27753. n of n: the mirror."""
    assert intervals.share(0, 10) == pytest.approx((0, 0, 0.27753), abs=1e-5)
    assert intervals.share(10, 10) == pytest.approx((1, 1 - 0.27753, 1), abs=1e-5)


def test_auc_and_delong_by_hand() -> None:
    """members 3, 1; others 2, 0. Pairs won: 3>2, 3>0, 1>0 of 4: .75.

    V10 = 1, .5 (variance .125); V01 = .5 (2 is beaten by one of two), 1 (variance .125).
    se = √(.125/2 + .125/2) = .35355; .75 ± .69296, cut at 1.
    """
    above, below = intervals.placements(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    assert above.tolist() == [1.0, 0.5] and below.tolist() == [0.5, 1.0]
    found = intervals.auc(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    assert found == pytest.approx((0.75, 0.75 - 0.69296, 1.0), abs=1e-5)


def test_auc_counts_ties_half() -> None:
    """1 against 1 and 0: half a win and a win of two: .75."""
    assert intervals.auc(np.array([1.0, 1.0]), np.array([1.0, 0.0])).value == 0.75


def test_auc_at_the_ends_is_exact() -> None:
    """Two independent pairs are both won with a chance of a²: .025 = a² gives a = .15811."""
    found = intervals.auc(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert found == pytest.approx((1, 0.15811, 1), abs=1e-5)
    found = intervals.auc(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    assert found == pytest.approx((0, 0, 1 - 0.15811), abs=1e-5)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 5), (5, 1), (4, 4)])
def test_auc_of_ties_alone_has_width(sizes: tuple[int, int]) -> None:
    value, low, high = intervals.auc(np.ones(sizes[0]), np.ones(sizes[1]))
    assert value == 0.5 and 0 <= low < 0.3 and 0.7 < high <= 1


def test_auc_against_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(0)
    ours, theirs = draw.integers(0, 9, 80), draw.integers(0, 7, 50)
    truth = np.repeat([1, 0], [80, 50])
    expected = roc_auc_score(truth, np.concatenate([ours, theirs]))
    assert intervals.auc(ours, theirs).value == pytest.approx(expected, abs=1e-12)


def test_harmonic_mean_by_hand() -> None:
    """1/2 and 1/4: 2 / (2 + 4) = 1/3; a part at 0 makes it 0."""
    assert intervals.harmonic_mean(np.array([0.5, 0.25])) == pytest.approx(1 / 3)
    assert intervals.harmonic_mean(np.array([[0.5, 0.0], [1.0, 1.0]])).tolist() == [0, 1]


def test_harmonic_skips_masked_entries() -> None:
    """Columns .5 (of .4 and .6) and .25 (of .25 alone): 1/3."""
    block = np.ma.masked_array([[0.4, 0.25], [0.6, 0.9]], mask=[[0, 0], [0, 1]])
    assert intervals.harmonic(block).value == pytest.approx(1 / 3)


def test_harmonic_is_never_nan_nor_falsely_sharp() -> None:
    for block in (np.ones((6, 3)), np.zeros((6, 3)), np.full((1, 2), 0.4), np.full((3, 1), 0.4)):
        value, low, high = intervals.harmonic(block)
        assert math.isfinite(low + high) and 0 <= low <= value <= high <= 1 and high - low > 0.1


def test_harmonic_of_blocks_of_unequal_size() -> None:
    draw = np.random.default_rng(2)
    blocks = [draw.random((n, 3)) for n in (40, 1, 25)]
    expected = intervals.harmonic_mean(np.concatenate([block.mean(axis=0) for block in blocks]))
    value, low, high = intervals.harmonic(*blocks)
    assert value == pytest.approx(float(expected)) and low < value < high
    assert intervals.harmonic(*blocks) == (value, low, high)  # seeded


def test_bca_of_a_mean_is_near_students_t() -> None:
    x = np.random.default_rng(3).normal(2, 1, 60)
    found = intervals.bca(lambda rows: x[rows].mean(axis=-1), 60)
    assert found == pytest.approx(intervals.mean(x), abs=0.05)


def test_coverage() -> None:
    """300 draws: the 95 % intervals hold the truth in 95 % ± 4 % (three standard errors)."""
    draw = np.random.default_rng(4)
    truth = 0.5 * (1 + math.erf(0.5))  # P(N(1, 1) > N(0, 1)) = Φ(1/√2)
    hits = np.zeros(3)
    for _ in range(300):
        mean = intervals.mean(draw.normal(0, 1, 8))
        share = intervals.share(draw.binomial(40, 0.3), 40)
        auc = intervals.auc(draw.normal(1, 1, 50), draw.normal(0, 1, 50))
        hits += [mean.low < 0 < mean.high, share.low < 0.3 < share.high, auc.low < truth < auc.high]
    assert (np.abs(hits / 300 - 0.95) < 0.04).all(), hits / 300


def test_a_rank_correlation_has_an_interval_even_where_the_order_is_perfect() -> None:
    """n = 6: one swap of neighbours leaves 1 - 12 / 210 = .942857; z 1.7626, half 1.96 (1.06 / 3)^.5 = 1.16504: low
    .5354."""
    found = intervals.rank_correlation([1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60])
    assert found == pytest.approx((1.0, 0.5354, 1.0), abs=2e-3)
    some = intervals.rank_correlation([1, 2, 3, 4, 5, 6], [2, 1, 3, 5, 4, 6])
    assert some is not None and some.value == pytest.approx(1 - 6 * 4 / 210) and some.low < some.value < some.high < 1
    assert (
        intervals.rank_correlation([1, 2, 3], [1, 2, 3]) is None
        and intervals.rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    )
