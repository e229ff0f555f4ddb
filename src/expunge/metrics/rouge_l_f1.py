"""ROUGE-L F1 of greedy generations."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import rouge_column
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "ROUGE-L F1",
    paper="Lin 2004 (ACL W04-1013)",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"generation"}},
    splits=("forget", "retain", "probes"),
    means="How closely the answer and the reference share their wording, in order; long answers "
    "score lower; a low figure may be another wording of the same fact.",
)


def rouge_l_f1() -> Metric:
    """F1 of the words that the model's own answer and the reference share, in order.

    Greedy generation; Porter-stemmed words, of scripts without spaces single characters.
    """

    def values(split: Readout) -> np.ndarray:
        return rouge_column(split, 1)

    return values
