"""Membership by confidence."""

from __future__ import annotations

from expunge.attacks.shared.membership import MEANS, compare
from expunge.core.card import AttackCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = AttackCard(
    "Confidence attack",
    paper="arXiv:1806.01246",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("labels",),
    needs={"forget": {"logits"}, "holdout": {"logits"}},
    means=MEANS,
)


def confidence_auc() -> Metric:
    """AUC by the log-probability of the most likely class, label unseen (Salem et al. 2019)."""

    def figure(forget: Readout, holdout: Readout) -> Figure:
        assert forget.logp_NC is not None and holdout.logp_NC is not None
        rows = forget.examples, holdout.examples
        return compare(forget.logp_NC.max(axis=1), holdout.logp_NC.max(axis=1), rows=rows)

    return figure
