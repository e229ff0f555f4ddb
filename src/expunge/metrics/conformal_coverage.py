"""Coverage of conformal sets."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric
from expunge.metrics._conformal import sets_of

CARD = MetricCard(
    "Coverage of conformal sets",
    paper="arXiv:2403.11348",
    equation="the split conformal sets beneath its certificates, without circuits of knowledge",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("labels",),
    needs={"split": {"logits"}, "holdout": {"logits"}},
    splits=("forget", "retain", "test"),
    means="The share of rows whose class is in their set, where sets miss a tenth of unseen rows: .9 on rows like the "
    "holdout's, whatever the model. Above that on retain, which was trained on; on the forget set as on unseen rows "
    "where it is forgotten. Below .9 on retain the promise is broken. Read the size of the sets beside it.",
)


def conformal_coverage(*, miss: Annotated[float, Gt(0), Lt(1)] = 0.1) -> Metric:
    """The share of rows whose class is in the conformal set that the holdout calibrates (Kang et al. 2024).

    miss: how often the sets may miss the true class of an unseen row.
    """

    def values(split: Readout, holdout: Readout) -> np.ndarray:
        assert split.labels_N is not None
        inside_NC = sets_of(split, holdout, miss)
        return inside_NC[np.arange(len(inside_NC)), split.labels_N]

    return values
