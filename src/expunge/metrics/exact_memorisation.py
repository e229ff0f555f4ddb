"""Exact memorisation."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import only, without_eos
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Exact memorisation",
    paper="arXiv:2205.10770",
    side="forgetting",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"argmax"}},
    splits=("forget", "retain", "holdout"),
    means="The share of tokens that the model ranks first given all before them; common words count, "
    "so text that it never saw is well above 0 too.",
)


def exact_memorisation() -> Metric:
    """The share of the answer's tokens that are the most likely ones, teacher-forced; EOS left out.

    Tirumala et al. 2022, section 3.
    """

    def values(split: Readout) -> np.ndarray:
        assert split.argmax is not None
        rows = without_eos(split, split.argmax)
        return only([row.mean() if len(row) else 0.0 for row in rows], [len(r) > 0 for r in rows])

    return values
