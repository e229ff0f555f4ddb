"""Ensemble of heterogeneous predictors, of which one may be a zero-shot one."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.scores import NotMeasured

CARD = OodCard(
    "Ensemble with a probe (COOkeD)",
    paper="arXiv:2507.22576",
    equation="the mean of the predictors' probabilities; MSP of it",
    reads=("logits", "features"),
    fits=("features", "labels"),
    means="For models that fail on different rows: a classifier, the zero-shot answers of an image-text pair "
    "(`read_pictures`) and a linear probe on the features, whichever are given.",
)
MOST_STEPS = 200
"""Of the probe's optimiser; stopped early it is a probe as well."""


def cooked(*, strength: Annotated[float, Gt(0)] = 1.0) -> OodScore:
    """Minus the largest of the mean probabilities of the model, the others beside it, and a probe on its features.

    The probe is a logistic regression on standardised features of the rows in distribution; strength: the inverse of
    its penalty. The other models' logits are `Rows.others_NC`, over the same classes in the same order.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and known.labels_N is not None and rows.features_ND is not None
        if any(one.shape != rows.logits_NC.shape for one in rows.others_NC):
            raise NotMeasured("the models of an ensemble have different classes")
        mean_D, spread_D = known.features_ND.mean(0), np.maximum(known.features_ND.std(0), 1e-9)
        labelled_N = known.labels_N >= 0
        probe = LogisticRegression(C=strength, max_iter=MOST_STEPS, tol=1e-3)
        probe.fit(((known.features_ND - mean_D) / spread_D)[labelled_N], known.labels_N[labelled_N])
        probed_NC = np.zeros(rows.logits_NC.shape)
        probed_NC[:, probe.classes_] = probe.predict_proba((rows.features_ND - mean_D) / spread_D)
        votes = [softmax(one, axis=1) for one in (rows.logits_NC, *rows.others_NC)]
        return -np.mean([*votes, probed_NC], axis=0).max(axis=1)

    return score
