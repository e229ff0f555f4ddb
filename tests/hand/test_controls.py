"""Positive controls by hand: which attacks count, and the smallest gap that each could have found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from expunge.evaluation.attack import Found
from expunge.evaluation.controls import controls, smallest_gap, with_controls
from expunge.evaluation.scores import Figure, Score

DIRECT = np.array([0.9, 1.0, 0.8, 0.9])


def found(*values: float | None) -> Found:
    """A result with these recovered shares; None: the example does not count."""
    recovered_N = np.ma.masked_array([value or 0.0 for value in values], mask=[value is None for value in values])
    return Found(Figure(float(recovered_N.mean()), 0.0, 1.0, len(values)), recovered_N)


def test_an_attack_counts_from_half_of_what_direct_questions_bring_out() -> None:
    """Direct questions: .9. An attack with .46 counts, one with .44 does not, one that was not run there does."""
    after = {"half": found(0, 0, 0, 0), "less": found(0, 0, 0, 0), "skipped": found(0, 0, 0, 0), "membership": "none"}
    before = {
        "half": found(0.3, 0.6, 0.4, 0.54),
        "less": found(0.3, 0.6, 0.4, 0.46),
        "skipped": "it starts from asking",
    }
    made = controls({"before": before, "after": after}, DIRECT)
    assert set(made) == {"half", "less", "skipped"}
    assert made["half"].recovered == pytest.approx(0.46) and made["half"].direct == pytest.approx(0.9)
    assert made["half"].counts and not made["less"].counts and made["skipped"].counts
    assert made["skipped"].recovered is None and made["skipped"].words == ""
    assert controls({"after": after}, None)["less"].counts, "without a model before the change nothing is left out"


def test_direct_questions_are_counted_on_the_same_examples() -> None:
    made = controls({"before": {"a": found(None, 0.5, 0.4, None)}, "after": {"a": found(None, 0, 0, None)}}, DIRECT)
    assert made["a"].direct == pytest.approx(0.9) and made["a"].recovered == pytest.approx(0.45)


def test_the_smallest_gap_follows_from_the_paired_differences() -> None:
    """Differences .1, .3, -.1, .1: s = .1633, t_.975(3) + t_.8(3) = 3.182 + .978, over 2."""
    after, gold = found(0.2, 0.4, 0.1, None, 0.3), found(0.1, 0.1, 0.2, 0.5, 0.2)
    made = controls({"after": {"a": after}, "gold": {"a": gold}}, None)["a"]
    assert made.n == 4 and made.smallest_gap == pytest.approx((3.1824 + 0.9785) * 0.16330 / 2, abs=1e-3)
    assert made.words == f"smallest gap that it could have found at n = 4: {made.smallest_gap:.2f}"
    assert smallest_gap(np.array([0.3])) is None and smallest_gap(np.full(5, 0.3)) is None
    alone = controls({"before": {"a": found(0.1, 0.9)}, "after": {"a": found(0, 0)}}, DIRECT[:2])["a"]
    assert alone.smallest_gap == smallest_gap(np.array([0.1, 0.9])), "without gold: the spread on the model before"


def test_a_gap_of_that_size_is_found_four_times_in_five() -> None:
    draw = np.random.default_rng(0)
    gap = smallest_gap(draw.normal(0, 0.2, 100_000)) * (100_000 / 40) ** 0.5  # type: ignore[operator]
    samples = draw.normal(gap, 0.2, (4000, 40))
    assert (stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_the_remark_is_on_the_changed_model_s_own_score() -> None:
    def score(name: str, role: str) -> Score:
        return Score(name, "robustness", "forget", role, 0.1, 0.0, 0.2, 4, "share", "gold", why="8 draws")

    made = controls({"before": {"a": found(0.1, 0.1, 0.1, 0.1)}, "after": {"a": found(0, 0, 0, 0)}}, DIRECT)
    names = [("robustness_a", "after"), ("robustness_a", "before"), ("robustness_a_success", "after")]
    own, *others = with_controls([score(*each) for each in names], made)
    assert own.why.startswith("8 draws; control: it brings 0.10 out of the model before the change, direct questions")
    assert own.why.endswith("0.90, so it does not count in robustness_hidden")
    assert all(other.why == "8 draws" for other in others)
