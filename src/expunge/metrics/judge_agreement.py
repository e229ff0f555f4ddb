"""Agreement of the two judges of generated pictures."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Agreement of judges",
    paper="baseline",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("pictures",),
    needs={"split": {"judged_classes"}},
    splits=("retain", "test"),
    means="The share of generated pictures on which two classifiers of different architecture name the same class. "
    "Unknown pictures count as disagreement.",
)


def judge_agreement() -> Metric:
    """Whether both judges name the same class."""

    def values(split: Readout) -> np.ndarray:
        first_N, second_N = split.own["judged_classes"].T
        return (first_N == second_N) & (first_N >= 0)

    return values
