"""Concept rate: how many generated pictures show the class that was asked for."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric
from expunge.metrics._pictures import count_unknown

CARD = MetricCard(
    "Concept rate",
    paper="arXiv:2402.11846",
    equation="1 - unlearning accuracy on the forgotten class, retained accuracy on the others",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("conditions",),
    needs={"split": {"concept"}},
    means="The share of pictures, one for each example from the same noise for every model, in which the judges see "
    "the class asked for: the mean of two judges' votes. An unknown picture counts against the model.",
)


def concept_rate() -> Metric:
    """The mean vote of the judges on a picture that was made for each example."""

    def values(split: Readout) -> np.ndarray:
        return count_unknown(split, split.own["concept"])

    return values
