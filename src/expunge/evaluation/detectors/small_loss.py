"""Small-loss selection by cross-validation: a wrong label is unlikely to a network that was not trained on it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from expunge.core.card import DetectorCard
from expunge.evaluation.detection import Detector, Sample, Suspicion

CARD = DetectorCard(
    "Small-loss selection, cross-validated",
    paper="arXiv:1905.05040",
    equation="algorithm 1",
    means="Rows whose label a network that never saw them finds unlikely: wrong labels, and hard rows. A trigger is "
    "learnt from the other rows that carry it, so a backdoor is not seen.",
    fidelity="simplified",
    leaves_out="the second step, which trains two networks on each other's rows of small loss",
)


def small_loss(
    *,
    folds: Annotated[int, Ge(2), Le(20)] = 3,
    share: Annotated[float, Gt(0), Le(1)] = 0.4,
    likely: Annotated[float, Gt(0), Le(1)] = 0.1,
) -> Detector:
    """Score each row by the loss of its label under a network trained without its fold.

    folds: parts of the rows; each is read by a network trained on the others. share: epochs of a training, as a share
    of the model's: wrong labels are learnt late. likely: a row is a suspect where its label has a lower probability
    and is not the class that the network names.
    """

    def detect(sample: Sample) -> Suspicion:
        sample.check_retrain("small_loss")
        count = len(sample.labels_N)
        fold_N = np.random.default_rng(sample.derive("folds")).permutation(count) % folds
        logp_N, guess_N = np.zeros(count), np.zeros(count, dtype=int)
        for fold in range(folds):
            mine = np.flatnonzero(fold_N == fold)
            logp_NC = sample.predict(fold_N != fold, share, "small_loss")
            logp_N[mine] = logp_NC[mine, sample.labels_N[mine]]
            guess_N[mine] = logp_NC[mine].argmax(-1)
        suspect_N = (logp_N < np.log(likely)) & (guess_N != sample.labels_N)
        remarks = {}
        for label in np.unique(sample.labels_N[suspect_N]):
            others = guess_N[suspect_N & (sample.labels_N == label)]
            remarks[int(label)] = f"most of them look like class {np.bincount(others).argmax()}"
        return Suspicion(-logp_N, suspect_N, remarks)

    return detect
