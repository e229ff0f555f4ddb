"""Truth ratio, as a share."""

from __future__ import annotations

import dataclasses

import numpy as np

from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric
from expunge.metrics import truth_ratio as released
from expunge.metrics.truth_ratio import Losses, ratios, truth_ratio_from

CARD = dataclasses.replace(
    released.CARD,
    title="Truth ratio (normalised)",
    paper="arXiv:2506.12618",
    equation="",
    means="How much of the probability goes to the truth rather than to near falsehoods: 0.5 means "
    "that the model cannot tell them apart; it says nothing about what the model would write.",
)


def truth_ratio_normalised_from(paraphrased: Losses, perturbed: Losses) -> np.ndarray:
    """Correct / (correct + wrong) = 1 / (1 + R), with the geometric means of `truth_ratio_from`."""
    return 1 / (1 + truth_ratio_from(paraphrased, perturbed))


def truth_ratio_normalised() -> Metric:
    """Mean of correct / (correct + wrong) on every split (OpenUnlearning's "prob_mean")."""

    def values(split: Readout) -> np.ndarray:
        return ratios(split, truth_ratio_normalised_from)

    return values
