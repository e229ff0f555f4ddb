"""Membership attacks combined."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.membership import MEANS, attack_scores, compare
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import only
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured

_CHANNELS = {"nll", "logp?", "moments?", "logits?"}
CARD = AttackCard(
    "Ensemble of attacks",
    paper="Membership inference attacks as privacy tools: reliability, disparity and ensemble (2025)",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": _CHANNELS, "holdout": _CHANNELS},
    means=MEANS,
)
MIN_EXAMPLES = 5
FPR = 0.05
"""False-positive rate at which an attack counts as having found an example."""


def ensemble_auc() -> Metric:
    """AUC of the readout attacks combined: the mean of their scores, each in standard deviations of the holdout.

    Nothing is fitted, so that it is at chance on data that were never seen (a cross-validated
    combination lies below, since its folds share their data). The score states its coverage: the share
    of the forget set that any attack finds at 5 % false positives each, and the share that all find.
    Two attacks with the same AUC can find different members.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        ours, theirs = attack_scores(forget), attack_scores(holdout)
        names = sorted(set(ours) & set(theirs))
        sides = [np.stack([np.ma.filled(x[name], np.nan) for name in names], axis=1) for x in (ours, theirs)]
        kept = [np.isfinite(x).all(axis=1) for x in sides]
        if min(x.sum() for x in kept) < MIN_EXAMPLES:
            raise NotMeasured(f"fewer than {MIN_EXAMPLES} examples on a side")
        members, others = (x[counts] for x, counts in zip(sides, kept, strict=True))
        spread = others.std(axis=0, ddof=1)
        together = [((x - others.mean(axis=0)) / np.maximum(spread, 1e-12)).mean(axis=1) for x in sides]
        hits = members > np.quantile(others, 1 - FPR, axis=0)
        why = (
            f"{', '.join(names)}; found by any {hits.any(axis=1).mean():.0%}, by all {hits.all(axis=1).mean():.0%} "
            f"at {FPR:.0%} false positives each"
        )
        found = [only(x, counts) for x, counts in zip(together, kept, strict=True)]
        return compare(found[0], found[1], why, rows=(forget.examples, holdout.examples))

    return figure
