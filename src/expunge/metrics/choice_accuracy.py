"""Accuracy on multiple choice."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import mean_nll, only
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Multiple-choice accuracy",
    paper="arXiv:2403.03218",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"nll", "variants"}},
    splits=("probes",),
    aggregate="share",
    means="How often the right choice is more likely than every other; chance is one in the number of choices. "
    "A model may know an answer that it does not prefer.",
)


def choice_accuracy() -> Metric:
    """The share of questions whose right choice has a higher likelihood per token than every wrong one.

    A tie counts as wrong. Rows with `choices` are asked with letters, so that one token decides.
    """

    def values(split: Readout) -> np.ndarray:
        assert split.perturbed is not None
        losses = mean_nll(split)
        counts = [len(row) > 0 for row in split.perturbed] & ~np.ma.getmaskarray(losses)
        pairs = zip(np.ma.getdata(losses), split.perturbed, strict=True)
        won = [float(own < np.min(wrong, initial=np.inf)) if np.isfinite(own) else np.nan for own, wrong in pairs]
        return only(won, counts)

    return values
