"""Intervals against worked values, and a small seeded simulation of their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expunge.evaluation import intervals
from expunge.evaluation.groups import group_numbers


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
    se = √(.125/2 + .125/2) = .35355, on the logit scale / (.75 * .25) = 1.88562. Welch's degrees:
    (2 * .0625)² / (2 * .0625²) = 2, t(.975, 2) = 4.30265. logit(.75) = 1.09861 ± 8.11320: .00090 and .99990.
    """
    above, below = intervals.placements(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    assert above.tolist() == [1.0, 0.5] and below.tolist() == [0.5, 1.0]
    found = intervals.auc(np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    assert found == pytest.approx((0.75, 0.00090, 0.99990), abs=1e-5)


def test_auc_is_as_wide_as_newcombe_near_its_ends() -> None:
    """One of 48² pairs lost, A = 2303/2304. DeLong on the logit scale alone: a low end of .9928.

    The low end a of Newcombe's interval has (A - a)² = z² a (1 - a) (1 + 47 (1 - a)/(2 - a) + 47 a/(1 + a)) / 48²,
    solved by bisection apart from this code: 0.95778.
    """
    members, others = np.array([1.5] + [3.0] * 47), np.array([2.0] + [1.0] * 47)
    value, low, high = intervals.auc(members, others)
    assert value == pytest.approx(2303 / 2304) and low == pytest.approx(0.95778, abs=1e-4) and value < high < 1


def test_clustered_means_by_hand() -> None:
    """1, 1, 3, 3, 5, 5 in three pairs: mean 3, totals -4, 0, 4; 3/2 * 32 / 36 = 1.33333, se 1.15470, t(.975, 2) =
    4.30265: 3 ± 4.96827. The examples alone: s² = 3.2, se .73030, t(.975, 5) = 2.57058."""
    x, groups = np.array([1.0, 1, 3, 3, 5, 5]), np.array([0, 0, 1, 1, 2, 2])
    assert intervals.mean(x, groups=groups) == pytest.approx((3, 3 - 4.96827, 3 + 4.96827), abs=1e-4)
    assert intervals.spread_of_mean(x, groups).design_effect == pytest.approx(1.33333 / 0.53333, abs=1e-4)
    assert intervals.mean(x, groups=np.arange(6)) == intervals.mean(x), "a group an example changes nothing"


def test_groups_that_agree_by_chance_do_not_narrow() -> None:
    """1, 5 in each of three groups: the group means are equal, and the interval is that of t with 2 degrees."""
    x, groups = np.array([1.0, 5, 1, 5, 1, 5]), np.array([0, 0, 1, 1, 2, 2])
    half = 4.30265 * (24 / 30) ** 0.5
    assert intervals.mean(x, groups=groups) == pytest.approx((3, 3 - half, 3 + half), abs=1e-4)


def test_a_row_without_a_group_counts_by_itself_and_leaves_the_others_clustered() -> None:
    rows = [{"group": i // 4} for i in range(16)]
    assert group_numbers(rows) is not None and len(set(group_numbers(rows)[0])) == 4
    found = group_numbers([{}, {}, *rows], [{}] * 3)
    assert found is not None and [len(set(side)) for side in found] == [6, 3]
    assert not set(found[0]) & set(found[1])
    assert group_numbers([{}] * 9, [{"group": i} for i in range(9)]) is None


def test_clustered_shares_by_hand() -> None:
    """6 of 12 in three groups of 4 with 4, 2, 0 hits: totals 2, 0, -2; 3/2 * 8 / 144 = .08333 against 3 / 132 = .02273:
    design effect 3.66667. t(.975, 2) / t(.975, 11) = 4.30265 / 2.20099, squared 3.82155: 12 / 14.0123 = .85639."""
    hits, groups = np.array([1.0] * 4 + [1, 1, 0, 0] + [0] * 4), np.repeat([0, 1, 2], 4)
    assert intervals.proportion(hits, groups=groups) == pytest.approx(intervals.share(0.428195, 0.85639), abs=1e-4)
    assert intervals.proportion(np.ones(12), groups=groups) == intervals.share(12, 12), "no spread, no clustering"


def test_clustered_auc_counts_groups_on_both_sides() -> None:
    """Groups that hold members and others move both alike: scores that rise with the group cancel out in the AUC."""
    draw = np.random.default_rng(1)
    shift = np.repeat(3 * draw.normal(0, 1, 12), 6)
    members, others = shift + 1 + draw.normal(0, 1, 72), shift + draw.normal(0, 1, 72)
    same, apart = np.repeat(np.arange(12), 6), 100 + np.repeat(np.arange(12), 6)
    paired, unpaired = (intervals.auc(members, others, groups=(same, other)) for other in (same, apart))
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)


def test_clustered_harmonic_mean_by_hand() -> None:
    """One part: the mean with Student's interval over groups. Two equal parts give the same."""
    x, groups = np.array([0.3, 0.3, 0.5, 0.5, 0.7, 0.7]), np.array([0, 0, 1, 1, 2, 2])
    expected = intervals.mean(x, 0.0, 1.0, groups=groups)
    assert intervals.harmonic(x[:, None], groups=[groups]) == pytest.approx(expected)
    assert intervals.harmonic(np.stack([x, x], axis=1), groups=[groups]) == pytest.approx(expected)
    assert intervals.harmonic(np.ones((6, 2)), groups=[groups]).low < 0.7, "no spread still has width"


def test_bootstrap_by_group_draws_groups_whole() -> None:
    """Ten groups of six equal values: as wide as the bootstrap of ten values."""
    x = np.random.default_rng(5).normal(0, 1, 10)
    found = intervals.bootstrap_by_group(lambda rows: np.repeat(x, 6)[rows].mean(), np.repeat(np.arange(10), 6))
    alone = intervals.bca(lambda rows: x[rows].mean(axis=-1), 10)
    assert found == pytest.approx(alone, abs=0.15)


def test_level_widens() -> None:
    """99.9 % intervals contain 95 % ones, for each kind."""
    draw = np.random.default_rng(2)
    x, y = draw.normal(1, 1, 30), draw.normal(0, 1, 30)
    for wide, narrow in (
        (intervals.mean(x, level=0.999), intervals.mean(x)),
        (intervals.share(3, 30, 0.999), intervals.share(3, 30)),
        (intervals.auc(x, y, level=0.999), intervals.auc(x, y)),
        (intervals.auc(x + 9, y, level=0.999), intervals.auc(x + 9, y)),
    ):
        assert wide.low < narrow.low and wide.high >= narrow.high


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
