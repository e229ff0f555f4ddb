"""Accuracy of the judges of generated pictures on real ones."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured

CARD = MetricCard(
    "Accuracy of judges",
    paper="baseline",
    side="utility",
    better="higher",
    unit="share",
    aggregate="mean",
    capabilities=("pictures",),
    needs={"split": {"judged_real"}},
    splits=("test",),
    means="The share of real, unseen pictures whose class the judges name, the mean of both: no concept rate can be "
    "told more finely than this.",
)


def judge_accuracy() -> Metric:
    """The mean of both judges' hits on each real picture."""

    def values(split: Readout) -> np.ndarray:
        hits_N = split.own["judged_real"][:, :2].mean(1)
        if not np.isfinite(hits_N).all():
            raise NotMeasured("there are no judges: the splits have no labelled pictures of two classes")
        return np.asarray(hits_N)

    return values
