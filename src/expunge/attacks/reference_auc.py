"""Membership by loss against a model that never saw the data."""

from __future__ import annotations

from expunge.attacks.shared.membership import MEANS, compare
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = AttackCard(
    "Reference attack",
    paper="arXiv:2012.07805",
    adversary="logits, also of gold",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"nll"}, "holdout": {"nll"}, "gold.forget": {"nll"}, "gold.holdout": {"nll"}},
    means=MEANS + " Here the attacker also has gold, which cancels how hard a text is.",
)


def reference_auc() -> Metric:
    """AUC by how far the loss per token lies below gold's on the same example (Carlini et al. 2021).

    Gold is the reference, never the model before the change: the loss gained since then shows what
    was unlearned, which is another attack and has the opposite sign.
    """

    def figure(forget: Readout, holdout: Readout, gold_forget: Readout, gold_holdout: Readout) -> Figure:
        rows = forget.examples, holdout.examples
        return compare(mean_nll(gold_forget) - mean_nll(forget), mean_nll(gold_holdout) - mean_nll(holdout), rows=rows)

    return figure
