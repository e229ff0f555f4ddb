"""A student of the features that saw known rows alone: where it errs, a row is far."""

from __future__ import annotations

import warnings
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.vim import default_dimensions

CARD = OodCard(
    "Student and autoencoder (EfficientAD)",
    paper="arXiv:2303.14535",
    equation="sections 3.2 and 3.4, on features of whole pictures",
    reads=("features", "inputs"),
    fits=("features", "inputs"),
    means="Unknown parts of a picture mislead a student that never saw the like, unknown arrangements an autoencoder. "
    "The paper reads maps of places, so that it shows where an anomaly is; here one figure stands for a picture.",
)
LOW, HIGH, AT_HIGH = 0.9, 0.995, 0.1
"""Quantiles of the known rows' errors that become 0 and 0.1, so that both errors weigh alike."""


def student(*, width: Annotated[int, Ge(1)] = 64, steps: Annotated[int, Ge(1)] = 60, seed: int = 0) -> OodScore:
    """The mean of two errors: of a student of the features, and between it and an autoencoder of them.

    Both predict the standardised features from the inputs: the student by one hidden layer of `width`, the autoencoder
    through a third of the inputs' principal components. Every second known row is fitted on; the others give the
    quantiles, .9 and .995, at which an error counts 0 and .1. steps: passes over the rows.
    """

    def score(known: Rows, rows: Rows) -> np.ndarray:
        fitted, held_out = (known.take(slice(first, None, 2)) for first in (0, 1))
        assert fitted.features_ND is not None and fitted.inputs_N is not None
        mean_D, spread_D = fitted.features_ND.mean(0), np.maximum(fitted.features_ND.std(0), 1e-9)
        x_NP, y_ND = fitted.inputs_N.reshape(len(fitted.inputs_N), -1), (fitted.features_ND - mean_D) / spread_D
        reduce = PCA(min(default_dimensions(x_NP.shape[1]), *x_NP.shape)).fit(x_NP)
        autoencoder = Ridge().fit(reduce.transform(x_NP), y_ND)
        # The student learns the features and what the autoencoder makes of them, each by outputs of its own.
        learner: Any = MLPRegressor(hidden_layer_sizes=(width,), max_iter=steps, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a student that has not converged is a student
            learner.fit(x_NP, np.hstack([y_ND, autoencoder.predict(reduce.transform(x_NP))]))

        def errors(of: Rows) -> np.ndarray:
            """[2, N] mean squared errors."""
            assert of.features_ND is not None and of.inputs_N is not None
            own_NP = of.inputs_N.reshape(len(of.inputs_N), -1)
            both_N2D = learner.predict(own_NP).reshape(len(own_NP), 2, -1)
            made_ND = autoencoder.predict(reduce.transform(own_NP))
            truth_N2D = np.stack([(of.features_ND - mean_D) / spread_D, made_ND], axis=1)
            return np.asarray(np.square(both_N2D - truth_N2D).mean(axis=2).T)

        usual, own = errors(held_out), errors(rows)
        return np.mean([normalise(one, each) for one, each in zip(usual, own, strict=True)], axis=0)

    return score


def normalise(usual_M: np.ndarray, error_N: np.ndarray) -> np.ndarray:
    """[N] errors on the line on which the usual ones' .9 quantile is 0 and their .995 quantile .1."""
    low, high = np.quantile(usual_M, [LOW, HIGH])
    return np.asarray(AT_HIGH * (error_N - low) / max(high - low, 1e-12))
