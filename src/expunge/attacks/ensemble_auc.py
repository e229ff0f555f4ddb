"""Membership attacks together."""

from __future__ import annotations

import numpy as np

from expunge.attacks._membership import MEANS, attack_scores, compare
from expunge.core.card import Card
from expunge.core.readout import Readout
from expunge.evidence import Figure, Metric, NotMeasured

_CHANNELS = {"nll", "logp?", "moments?", "logits?"}
CARD = Card(
    "Ensemble of attacks", paper="Membership inference attacks as privacy tools: reliability, disparity and ensemble (2025)", side="privacy", better="gold", unit="auc",
    needs={"forget": _CHANNELS, "holdout": _CHANNELS}, means=MEANS,
)  # fmt: skip
FOLDS = 5
LOW = 0.05
"""False-positive rate at which an attack is said to have found an example."""


def ensemble_auc() -> Metric:
    """AUC of the readout attacks together: logistic regression on their scores, cross-fitted.

    No example is scored by a model that saw it; it must not be read as the best single attack's.
    The score says its coverage: the share of the forget set that any attack finds at 5 % false
    positives each, and the share that all find. Two attacks of one AUC can find different members.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        ours, theirs = attack_scores(forget), attack_scores(holdout)
        names = sorted(set(ours) & set(theirs))
        rows = [np.stack([np.ma.filled(x[name], np.nan) for name in names], axis=1) for x in (ours, theirs)]
        rows = [x[np.isfinite(x).all(axis=1)] for x in rows]
        if min(map(len, rows)) < FOLDS:
            raise NotMeasured(f"fewer than {FOLDS} examples on a side")
        side = np.repeat([1, 0], [len(x) for x in rows])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
        found = cross_val_predict(model, np.concatenate(rows), side, method="decision_function",
                                  cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0))  # fmt: skip
        limits = np.quantile(rows[1], 1 - LOW, axis=0)
        hits = rows[0] > limits
        why = (f"{', '.join(names)}; found by any {hits.any(axis=1).mean():.0%}, by all {hits.all(axis=1).mean():.0%} "
               f"at {LOW:.0%} false positives each")  # fmt: skip
        return compare(found[side == 1], found[side == 0], why)

    return figure
