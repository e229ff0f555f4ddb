"""Length-normalised probability of the answer."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric

CARD = MetricCard(
    "Answer probability",
    paper="arXiv:2401.06121",
    equation="section 2.2.2",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"nll"}},
    splits=("forget", "retain", "holdout", "test", "real_authors", "world_facts", "probes"),
    means="How readily the model gives exactly this wording, per token; a low figure does not show that "
    "it would not say the same in other words.",
)


def probability_from(mean_nll: np.ndarray) -> np.ndarray:
    """P(a|q)^(1/|a|) = exp(-loss), from [N] losses in nats per token."""
    return np.asanyarray(np.exp(-np.asanyarray(mean_nll)))


def probability() -> Metric:
    """P(answer | question)^(1/tokens), averaged over examples (TOFU, section 2.2.2); EOS counts."""

    def values(split: Readout) -> np.ndarray:
        return probability_from(mean_nll(split))

    return values
