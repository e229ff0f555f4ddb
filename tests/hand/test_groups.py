"""Fairness of utility between groups, worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from readouts import classifier, readout

from expunge.evaluation.acceptance import parse, verdict
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured, measure, score_names
from expunge.metrics.group_gap import gap_from, group_gap
from expunge.metrics.group_ratio import group_ratio, ratio_from

TOKENS = frozenset({"tokens", "nll"})


def grouped(p: Sequence[float], names: Sequence[object], model: str = "after") -> Readout:
    """Answers of these probabilities a token, in these groups."""
    rows = [{"question": str(i), "answer": "a", "group": name} for i, name in enumerate(names)]
    return readout([-math.log(x) for x in p], "retain", model, examples=rows)


def test_the_arithmetic() -> None:
    """Changes -.1 and -.4: gap .3. Kept .4/.8 = .5 against .7/.8 = .875: ratio .571429; none kept: even."""
    before, after = np.array([0.8, 0.8]), np.array([0.7, 0.4])
    assert gap_from(before, after) == pytest.approx(0.3)
    assert ratio_from(before, after) == pytest.approx(0.5 / 0.875)
    assert ratio_from(before, np.zeros(2)) == 1.0
    assert ratio_from(np.array([0.0, 0.5]), np.array([0.0, 0.5])) == 1.0


def test_one_group_pays() -> None:
    """a keeps .8, b falls from .8 to about .4, six each: gap about .4, ratio about .5, and chance does not explain it."""
    names = ["a"] * 6 + ["b"] * 6
    spread = [0.38, 0.39, 0.4, 0.4, 0.41, 0.42]
    before, after = grouped([0.8] * 12, names, "before"), grouped([0.8] * 6 + spread, names)
    gap, ratio = group_gap()(after, before), group_ratio()(after, before)
    assert gap.value == pytest.approx(0.4) and 0.38 < gap.low < 0.4 < gap.high < 0.42 and gap.n == 12
    assert ratio.value == pytest.approx(0.5) and 0.48 < ratio.low < 0.5 < ratio.high < 0.53
    assert "worst b -0.400, best a +0.000" in gap.why and "worst b +0.500, best a +1.000" in ratio.why
    assert float(gap.why.rpartition("p = ")[2]) < 0.01 and float(ratio.why.rpartition("p = ")[2]) < 0.01


def test_chance_alone_is_told_as_such() -> None:
    """Four groups drawn at random from the same falls: the gap is above 0, and its p-value says that this means nothing."""
    draw = np.random.default_rng(3)
    names = [i % 4 for i in range(40)]
    gap = group_gap()(grouped(list(0.5 + 0.3 * draw.random(40)), names), grouped([0.8] * 40, names, "before"))
    assert gap.value > 0 and float(gap.why.rpartition("p = ")[2]) > 0.05


def test_no_spread_still_has_the_width_that_the_size_allows() -> None:
    """Nothing moved, five examples a group: Wilson's end for 0 of 5 is 3.8415 / 8.8415 = .43448."""
    names = ["a"] * 5 + ["b"] * 5
    same = grouped([0.8] * 10, names), grouped([0.8] * 10, names, "before")
    gap, ratio = group_gap()(*same), group_ratio()(*same)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0, 0, 0.43448), abs=1e-5)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1, 0.56552, 1), abs=1e-5)


def test_a_classifier_is_judged_by_accuracy() -> None:
    """a: 5 of 5 before and after; b: 5 of 5 before, 3 of 5 after: gap .4, ratio .6."""
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    before = classifier([right] * 10, [0] * 10, "retain", "before")
    after = classifier([right] * 8 + [wrong] * 2, [0] * 10, "retain")
    after.examples = [{"label": 0, "group": "ab"[i >= 5]} for i in range(10)]
    assert group_gap()(after, before).value == pytest.approx(0.4)
    assert group_ratio()(after, before).value == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([None] * 10, "no examples have a group"),
        (["a"] * 10, "there are 1, of which 1 are that large"),
        (["a"] * 6 + ["b"] * 4, "there are 2, of which 1 are that large"),
        ([str(i // 5) for i in range(105)], "there are 21, of which 21 are that large"),
    ],
)
def test_unfit_groups_are_not_measured(names: list[object], why: str) -> None:
    both = grouped([0.5] * len(names), names), grouped([0.8] * len(names), names, "before")
    for metric in (group_gap(), group_ratio()):
        with pytest.raises(NotMeasured, match=why):
            metric(*both)


def test_small_groups_beside_large_ones_are_left_out_and_it_is_said() -> None:
    names = ["a"] * 5 + ["b"] * 5 + ["c"] * 2
    found = group_gap()(grouped([0.5] * 12, names), grouped([0.8] * 12, names, "before"))
    assert found.n == 10 and found.why.endswith("1 groups of fewer than 5 examples left out")


def test_nothing_kept_and_nothing_to_lose_have_no_ratio() -> None:
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    rows = [{"label": 0, "group": "ab"[i >= 5]} for i in range(10)]
    good, bad, half = (
        classifier(p, [0] * 10, "retain") for p in ([right] * 10, [wrong] * 10, [right] * 5 + [wrong] * 5)
    )
    for one in (good, bad, half):
        one.examples = rows
    with pytest.raises(NotMeasured, match="no group kept any utility"):
        group_ratio()(bad, good)
    with pytest.raises(NotMeasured, match="group b had no utility before"):
        group_ratio()(good, half)


def test_they_are_scores_of_alignment_and_need_the_model_before() -> None:
    names = ["a"] * 5 + ["b"] * 5
    reads = {
        role: {"retain": grouped([0.5 if role == "after" else 0.8] * 10, names, role)} for role in ("before", "after")
    }
    scores = {(s.name, s.role): s for s in measure(reads, TOKENS) if "group" in s.name}
    gap = scores["alignment_group_gap", "after"]
    assert (gap.side, gap.split, gap.unit, gap.better, gap.measured) == ("alignment", "retain", "share", "lower", True)
    assert scores["alignment_group_ratio", "after"].unit == "ratio"
    assert scores["alignment_group_gap", "before"].why == "by definition: before against itself"
    (alone,) = [s for s in measure({"after": reads["after"]}, TOKENS) if s.name == "alignment_group_gap"]
    assert alone.why == "the model before the change was not read"


def test_groups_of_data_that_never_trained_are_measured_too() -> None:
    """Forgetting may hurt one group where nothing was kept by training on it: the same figures on holdout and test. The bare
    name is retain's, `.holdout` and `.test` name the others."""
    names = ["a"] * 5 + ["b"] * 5
    after = {"retain": [0.8] * 10, "holdout": [0.8] * 5 + [0.4] * 5}
    reads = {
        role: {split: grouped(p if role == "after" else [0.8] * 10, names, role) for split, p in after.items()}
        for role in ("before", "after")
    }
    for splits in reads.values():
        splits["holdout"].split = "holdout"
    found = [s for s in measure(reads, TOKENS) if s.role == "after" and s.measured]
    gap = {s.split: s for s in found if s.name == "alignment_group_gap"}
    assert gap["retain"].value == pytest.approx(0) and gap["holdout"].value == pytest.approx(0.4)
    assert (gap["holdout"].side, gap["holdout"].better) == ("alignment", "lower")
    known = score_names(TOKENS, ["forget", "retain", "holdout"], False)
    assert {"alignment_group_gap", "alignment_group_gap.retain", "alignment_group_gap.holdout"} <= set(known)
    assert "alignment_group_gap" not in score_names(TOKENS, ["forget", "holdout"], False)
    bars = {"alignment.group_gap": "<= 0.1", "alignment.group_gap.holdout": "<= 0.1"}
    lines = verdict([parse(key, text) for key, text in bars.items()], found).lines
    assert [line.passed for line in lines][:2] == [True, False]
