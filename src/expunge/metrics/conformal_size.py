"""Size of conformal sets."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric
from expunge.metrics._conformal import sets_of

CARD = MetricCard(
    "Size of conformal sets",
    paper="arXiv:2403.11348",
    equation="the split conformal sets beneath its certificates, without circuits of knowledge",
    side="utility",
    better="lower",
    unit="count",
    capabilities=("labels",),
    needs={"split": {"logits"}, "holdout": {"logits"}},
    splits=("forget", "retain", "test"),
    means="How many classes a row's set has: one where the model is sure enough, none where it is less sure of all "
    "than unseen rows ask for. What is forgotten has sets as large as an unseen row's.",
)


def conformal_size(*, miss: Annotated[float, Gt(0), Lt(1)] = 0.1) -> Metric:
    """The mean number of classes in the conformal sets that the holdout calibrates.

    miss: how often the sets may miss the true class of an unseen row.
    """

    def values(split: Readout, holdout: Readout) -> np.ndarray:
        return sets_of(split, holdout, miss).sum(axis=1)

    return values
