"""Probability of the right answer among the options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import mean_nll, only
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Answer probability among options",
    paper="arXiv:2401.06121",
    equation="section 2.2.2",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"nll", "variants"}},
    splits=("real_authors", "world_facts", "probes"),
    means="How clearly the model prefers the right answer to the wrong ones that were offered; it says "
    "nothing about answers that were not offered.",
)


def probability_options_from(mean_nll: np.ndarray, options_nll: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The share p / (p + Σ p_wrong), p = exp(-loss), of [N] losses and N arrays of the options'.

    Written without dividing probabilities, so that losses of any size keep their ratio.
    """
    gaps = [loss - np.asarray(wrong) for loss, wrong in zip(mean_nll, options_nll, strict=True)]
    return np.array([1 / (1 + np.exp(np.clip(gap, -300, 300)).sum()) for gap in gaps])


def probability_options() -> Metric:
    """The share p(answer) / (p(answer) + Σ p(perturbed answer)) of TOFU, 2.2.2."""

    def values(split: Readout) -> np.ndarray:
        assert split.perturbed is not None
        losses = mean_nll(split)
        counts = [len(row) > 0 for row in split.perturbed] & ~np.ma.getmaskarray(losses)
        return only(probability_options_from(np.ma.getdata(losses), split.perturbed), counts)

    return values
