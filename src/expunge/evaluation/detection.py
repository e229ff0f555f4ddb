"""Detectors of poisoned training rows: what they get, and what they give back.

A detector is a file in evaluation/detectors/ with a CARD and a factory of its name, which returns a function
`(Sample) -> Suspicion`: arithmetic on features and labels. Suffixes: N rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.evaluation.ood import Rows, read_rows

Retrain = Callable[[np.ndarray, float], np.ndarray]
"""([N] rows that are kept, share of the training's epochs) -> [N, C] log-probabilities of all rows under a network
that was trained on the kept rows as the model was."""


@dataclass(frozen=True)
class Sample:
    """The training rows as a detector sees them.

    features_ND: the inputs of the model's last linear layer, or the last block's states over the answer of a language
    model. labels_N: the classes under which the rows are trained on; of a language model all 0. retrain: None where
    nothing tells how the model was trained. rows: all that a classifier says of them; None of a language model.
    """

    features_ND: np.ndarray
    labels_N: np.ndarray
    seed: int = 0
    retrain: Retrain | None = None
    rows: Rows | None = None

    def predict(self, keep_N: np.ndarray, share: float, why: str) -> np.ndarray:
        """The log-probabilities that `retrain` gives; why: what asks for it. Raises BadInput where it cannot."""
        self.check_retrain(why)
        assert self.retrain is not None
        return self.retrain(keep_N, share)

    def check_retrain(self, why: str) -> None:
        """Raise BadInput where the model cannot be trained again."""
        if self.retrain is None:
            reason = f"has no training manifest, and {why} trains networks as the model was"
            raise BadInput.of("model", "", reason, "give a model that `expunge train` made, or another detector")

    def derive(self, *parts: object) -> int:
        """A seed for these parts, of 32 bits."""
        return derive(self.seed, "detect", *parts) % 2**32


@dataclass(frozen=True)
class Suspicion:
    """score_N: higher = more suspicious; suspect_N: the rows that the detector would remove; remarks: class -> why."""

    score_N: np.ndarray
    suspect_N: np.ndarray
    remarks: dict[int, str]


Detector = Callable[[Sample], Suspicion]


def penultimate(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N, D] inputs of the model's last layer, in double precision. Raises BadInput where that layer is not linear."""
    return features_of(model, read_rows(model, rows))


def features_of(model: Model, read: Rows) -> np.ndarray:
    """[N, D] the features among what was read. Raises BadInput where the last layer is not linear."""
    if read.features_ND is None:
        name = type(model.module).__name__
        raise BadInput.of("model", name, "does not end in a linear layer, whose inputs are features", "give another")
    return read.features_ND
