"""Likelihood under a mixture of prototypes."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from scipy.special import logsumexp, softmax

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.knn import unit_length

CARD = OodCard(
    "Mixture of prototypes (PALM)",
    paper="arXiv:2402.02653",
    equation="3 and 4, fitted to features as they are: the paper trains the network for it",
    reads=("features",),
    fits=("features", "labels"),
    means="A class may have several centres: a row is far where it lies in the direction of none of them.",
)
ROUNDS = 20


def prototypes(*, count: Annotated[int, Ge(1)] = 6, temperature: Annotated[float, Gt(0)] = 0.1) -> OodScore:
    """Minus the log-likelihood under `count` von Mises-Fisher distributions for each class (Lu et al. 2024).

    -log of the mean over classes of the sum of w exp(z·p/temperature), z features of unit length, p prototypes of unit
    length and w their shares of the class, both by expectation maximisation from rows that lie far apart.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and known.labels_N is not None and rows.features_ND is not None
        z_ND = unit_length(rows.features_ND)
        classes = []
        for label in np.unique(known.labels_N):
            own_ND = unit_length(known.features_ND[known.labels_N == label])
            prototypes_KD, share_K = fit_mixture(own_ND, count, temperature)
            classes.append(logsumexp(z_ND @ prototypes_KD.T / temperature, axis=1, b=share_K))
        return np.asarray(np.log(len(classes)) - logsumexp(np.stack(classes, axis=1), axis=1))

    return score


def fit_mixture(unit_ND: np.ndarray, count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """([K, D] prototypes of unit length, [K] their shares) of rows of unit length; no more than there are rows."""
    places = [int((unit_ND @ unit_ND.mean(axis=0)).argmax())]
    for _ in range(min(count, len(unit_ND)) - 1):
        places.append(int((unit_ND @ unit_ND[places].T).max(axis=1).argmin()))
    prototypes_KD, share_K = unit_ND[places], np.full(len(places), 1 / len(places))
    for _ in range(ROUNDS):
        weight_NK = softmax(unit_ND @ prototypes_KD.T / temperature + np.log(share_K + 1e-12), axis=1)
        prototypes_KD, share_K = unit_length(weight_NK.T @ unit_ND), weight_NK.mean(axis=0)
    return prototypes_KD, share_K
