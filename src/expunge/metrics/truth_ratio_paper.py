"""Truth ratio, as in the paper's text."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import logsumexp

from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric
from expunge.metrics import truth_ratio as released
from expunge.metrics.truth_ratio import Losses, as_score, ratios

CARD = dataclasses.replace(
    released.CARD,
    title="Truth ratio (the paper's formula)",
    equation="1 (as printed)",
    means=released.CARD.means + " Arithmetic mean over the falsehoods: one likely falsehood weighs "
    "more than in truth_ratio.",
)


def truth_ratio_paper_from(paraphrased: Losses, perturbed: Losses) -> np.ndarray:
    """R with arithmetic means: mean of p^(1/|a|) over the perturbed, divided by that of the paraphrases.

    N rows of losses in nats per token, or [N]. On TOFU's published Llama-2 losses it differs from
    `truth_ratio_from` by 5 to 8 % on average, and by up to a factor of 7.
    """
    gaps = [_log_mean(false) - _log_mean(true) for true, false in zip(paraphrased, perturbed, strict=True)]
    return np.asarray(np.exp(np.clip(gaps, -300, 300)))


def _log_mean(losses: np.ndarray) -> float:
    rows = np.atleast_1d(losses)
    return float(logsumexp(-rows)) - float(np.log(len(rows)))


def truth_ratio_paper() -> Metric:
    """As `truth_ratio`, with R from `truth_ratio_paper_from` (TOFU, equation 1)."""

    def values(split: Readout) -> np.ndarray:
        return as_score(ratios(split, truth_ratio_paper_from), split.split)

    return values
