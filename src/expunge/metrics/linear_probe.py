"""Accuracy of a linear probe."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured
from expunge.metrics._embeddings import embeddings, labels

CARD = MetricCard(
    "Accuracy of a linear probe",
    paper="arXiv:1610.01644",
    equation="a linear classifier of frozen features",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("embedding",),
    needs={"split": {"embedding"}, "retain": {"embedding"}},
    means="The share of examples whose class a linear classifier tells, which is fitted to the frozen embeddings of "
    "the retain examples: how useful the encoder still is. On the forget set it should be close to gold's.",
)
FOLDS = 5


def linear_probe() -> Metric:
    """The share of examples whose label a logistic regression on the retain examples' embeddings gives.

    Embeddings are standardised by retain's mean and deviation; L2 penalty 1. On retain itself the probe is
    cross-validated (5 folds, by place).
    """

    def values(split: Readout, retain: Readout) -> np.ndarray:
        x_MD, y_M = embeddings(retain), labels(retain)
        if len(np.unique(y_M)) < 2:
            raise NotMeasured("retain has a single class")
        if split.split != retain.split:
            return predict(x_MD, y_M, embeddings(split)) == labels(split)
        guess_M = np.full_like(y_M, -1)
        fold_M = np.arange(len(y_M)) % FOLDS
        for fold in range(FOLDS):
            inside_M = fold_M != fold
            if len(np.unique(y_M[inside_M])) < 2:
                raise NotMeasured(f"a fold of {int(inside_M.sum())} retain examples has a single class")
            guess_M[~inside_M] = predict(x_MD[inside_M], y_M[inside_M], x_MD[~inside_M])
        return guess_M == y_M

    return values


def predict(x_MD: np.ndarray, y_M: np.ndarray, query_ND: np.ndarray) -> np.ndarray:
    """[N] classes of the queries, by a logistic regression fitted to x and y."""
    from sklearn.linear_model import LogisticRegression  # heavy, and a plan imports every metric

    mean_D, deviation_D = x_MD.mean(0), np.maximum(x_MD.std(0), 1e-6)
    if not len(query_ND):
        return y_M[:0]
    probe = LogisticRegression(max_iter=2000).fit((x_MD - mean_D) / deviation_D, y_M)
    return np.asarray(probe.predict((query_ND - mean_D) / deviation_D))
