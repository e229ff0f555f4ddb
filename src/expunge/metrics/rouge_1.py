"""ROUGE-1 recall of greedy generations."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import rouge_column
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "ROUGE-1 recall",
    paper="Lin 2004 (ACL W04-1013)",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"generation"}},
    splits=("forget", "retain"),
    means="How many of the reference's words the answer repeats; "
    "it ignores order, so a false sentence of the same words scores as high.",
)


def rouge_1() -> Metric:
    """The share of the reference's words that the model's own answer repeats, in any order.

    Greedy generation; Porter-stemmed words, of scripts without spaces single characters.
    """

    def values(split: Readout) -> np.ndarray:
        return rouge_column(split, 2)

    return values
