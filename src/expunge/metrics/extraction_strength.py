"""Extraction strength."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import only, without_eos
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Extraction strength",
    paper="arXiv:2012.07805",
    side="forgetting",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"argmax"}},
    splits=("forget", "retain", "holdout"),
    means="How little of an answer must be shown before the model completes the rest word for word; "
    "it measures verbatim recall from this prompt alone, not paraphrases or other prompts.",
)


def extraction_strength_from(hits: np.ndarray) -> float:
    """1 - k/T for [T] hits under teacher forcing; from position k on, every token hits.

    Where the last token misses, no suffix is extracted, k = T, and the strength is 0.
    """
    misses = np.flatnonzero(~np.asarray(hits, dtype=bool))
    return 1 - (int(misses[-1]) + 1) / len(hits) if len(misses) else 1.0


def extraction_strength() -> Metric:
    """The share of the answer that the model completes by itself, EOS left out (Carlini et al. 2021).

    Answers without tokens do not count.
    """

    def values(split: Readout) -> np.ndarray:
        assert split.argmax is not None
        rows = without_eos(split, split.argmax)
        strengths = [extraction_strength_from(row) if len(row) else 0.0 for row in rows]
        return only(strengths, [len(row) > 0 for row in rows])

    return values
