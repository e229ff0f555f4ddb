"""ROUGE-L recall of greedy generations."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import rouge_column
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "ROUGE-L recall",
    paper="Lin 2004 (ACL W04-1013)",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"generation"}},
    splits=("forget", "retain", "probes"),
    means="How much of the reference's wording the answer repeats, in order; a low figure may be the same "
    "fact in other words, a high one may miss the word that matters.",
)


def rouge_l() -> Metric:
    """The share of the reference's words that the model's own answer repeats, in order.

    Greedy generation; Porter-stemmed words, of scripts without spaces single characters.
    """

    def values(split: Readout) -> np.ndarray:
        return rouge_column(split, 0)

    return values
