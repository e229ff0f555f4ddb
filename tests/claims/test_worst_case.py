"""Worst-case forget sets beside random ones, on digits of which a tenth has wrong labels that were learned by heart.

Figures of scripts/worst_case, whose pool, rounds and methods were set before any was seen; of its two methods the
other, gradient difference, shows no gap.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pytest
from scipy.stats import ttest_ind

from expunge.evaluation.intervals import Interval, share
from loading import load_script

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
SCRIPT = load_script("worst_case")


@cache
def measured(seed: int) -> dict[str, Any]:
    found: dict[str, Any] = SCRIPT.measure(seed)
    return found


def known(counts: Iterable[Sequence[int]]) -> Interval:
    """The share of all rows whose label the model gives, with its interval."""
    hits, rows = (sum(each) for each in zip(*counts, strict=True))
    return share(hits, rows)


@pytest.mark.claims("worst_case")
def test_what_it_picks_is_remembered_beyond_the_interval_of_random_sets() -> None:
    """Random labels, over three seeds: the whole interval of what the worst eighties leave lies above that of nine
    random eighties, on each seed the worst one leaves more than random ones do on average, and the difference of the
    runs' means is above 0 with its whole interval (Welch), since single runs differ widely."""
    runs = [measured(seed)["random_label"] for seed in SEEDS]
    worst, chance = known(run["worst"] for run in runs), known(pair for run in runs for pair in run["random"])
    assert worst.low > chance.high, (worst, chance)
    for run in runs:
        assert known([run["worst"]]).value > known(run["random"]).value, run
    sides = (
        [known([run["worst"]]).value for run in runs],
        [known([pair]).value for run in runs for pair in run["random"]],
    )
    assert ttest_ind(*sides, equal_var=False).confidence_interval().low > 0, sides
