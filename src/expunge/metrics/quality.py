"""Forget quality."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric
from expunge.metrics.truth_ratio import ratios

CARD = MetricCard(
    "Forget quality",
    paper="arXiv:2401.06121",
    equation="section 2.2.3",
    side="forgetting",
    better="higher",
    unit="p-value",
    capabilities=("tokens",),
    needs={"split": {"nll", "variants"}, "gold.split": {"nll", "variants"}},
    splits=("forget",),
    means="A small p-value shows that the truth ratios differ from gold's; a large one does not "
    "show that they agree, least of all with few examples.",
)


def forget_quality_from(ratios_a: np.ndarray, ratios_b: np.ndarray) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test on [N] and [M] raw truth ratios."""
    from scipy import stats  # half a second, and plans import every metric

    return float(stats.ks_2samp(ratios_a, ratios_b).pvalue)


def quality() -> Metric:
    """KS p-value of the truth ratios against gold's on forget (TOFU, 2.2.3); no interval."""

    def figure(split: Readout, gold_split: Readout) -> Figure:
        ours = np.ma.masked_array(ratios(split)).compressed()
        golds = np.ma.masked_array(ratios(gold_split)).compressed()
        return Figure(forget_quality_from(ours, golds), None, None, n=len(ours))

    return figure
