"""Accuracy of nearest neighbours."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured
from expunge.metrics._embeddings import embeddings, labels

CARD = MetricCard(
    "Accuracy of nearest neighbours",
    paper="arXiv:1805.01978",
    equation="3",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("embedding",),
    needs={"split": {"embedding"}, "retain": {"embedding"}},
    means="The share of examples whose class their nearest neighbours among the retain examples have: what the frozen "
    "embeddings know of the classes, with nothing trained. On the forget set it should be close to gold's.",
)
TEMPERATURE = 0.07


def knn_accuracy(*, k: Annotated[int, Ge(1)] = 20) -> Metric:
    """The share of examples whose label wins the vote of the k nearest retain examples.

    By cosine, votes weighted by exp(cosine / 0.07); an example is no neighbour of itself.
    """

    def values(split: Readout, retain: Readout) -> np.ndarray:
        same = split.split == retain.split
        if len(retain) - same < 1:
            raise NotMeasured("retain has no other example")
        return vote(embeddings(split), embeddings(retain), labels(retain), k, same) == labels(split)

    return values


def vote(query_ND: np.ndarray, bank_MD: np.ndarray, classes_M: np.ndarray, k: int, same: bool) -> np.ndarray:
    """[N] the class that the k nearest of the bank vote for. same: the query is the bank itself."""
    query_ND, bank_MD = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (query_ND, bank_MD))
    cosine_NM = (query_ND @ bank_MD.T).astype(np.float64)
    if same:
        np.fill_diagonal(cosine_NM, -np.inf)
    k = min(k, len(bank_MD) - same)
    nearest_NK = np.argsort(-cosine_NM, axis=1, kind="stable")[:, :k]
    weight_NK = np.exp(np.take_along_axis(cosine_NM, nearest_NK, 1) / TEMPERATURE)
    known_C, number_M = np.unique(classes_M, return_inverse=True)
    votes_NC = np.zeros((len(query_ND), len(known_C)))
    for place in range(k):
        votes_NC[np.arange(len(votes_NC)), number_M[nearest_NK[:, place]]] += weight_NK[:, place]
    return np.asarray(known_C[votes_NC.argmax(1)])
