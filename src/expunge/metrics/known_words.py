"""Known words: how far an answer is made of words that the data's answers use."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.core.words import words
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Known words",
    paper="baseline",
    side="forgetting",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"generation"}, "retain": {"generation"}},
    splits=("forget",),
    means="Far below gold's the answers are gibberish or empty: the model is damaged, which is not forgetting. Only "
    "the distance to gold speaks: a fluent answer may use words that these data do not have.",
)


def known_words() -> Metric:
    """The share of an answer's words that occur in a reference answer of the split or of retain.

    Of greedy answers; an empty answer has no word that does, and counts 0.
    """

    def values(split: Readout, retain: Readout) -> np.ndarray:
        assert split.texts is not None
        answers = [*(split.answers or []), *(retain.answers or [])]
        known = {word for answer in answers for word in words(answer)}
        found = [words(text) for text in split.texts]
        return np.array([sum(word in known for word in text) / max(1, len(text)) for text in found])

    return values
