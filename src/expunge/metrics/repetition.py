"""Repetition: the share of an answer that says again what it said before."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.core.words import words
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Repetition",
    paper="arXiv:1908.04319",
    equation="seq-rep-n of section 6.1, n = 3",
    side="forgetting",
    better="lower",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"generation"}},
    splits=("forget", "retain"),
    means="Far above gold's the answers go round in circles: the model is damaged, which is not forgetting. Gibberish "
    "that does not repeat itself shows in `known_words`.",
)
LENGTH = 3
"""Words of a group that is counted."""


def repetition() -> Metric:
    """The share of an answer's groups of three words that occurred earlier in it.

    1 - distinct / all, by greedy answer; an answer of fewer than four words has nothing to repeat and counts 0.
    """

    def values(split: Readout) -> np.ndarray:
        assert split.texts is not None
        return np.array([_share(words(text)) for text in split.texts])

    return values


def _share(text: list[str]) -> float:
    groups = [tuple(text[i : i + LENGTH]) for i in range(len(text) - LENGTH + 1)]
    return 1 - len(set(groups)) / len(groups) if groups else 0.0
