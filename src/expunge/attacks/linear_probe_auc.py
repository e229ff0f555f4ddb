"""Linear probes on the layers."""

from __future__ import annotations

import numpy as np

from expunge.attacking import Attack, Found, Target
from expunge.attacks._membership import MEANS, compared
from expunge.core.card import Card
from expunge.evidence import NotMeasured

CARD = Card(
    "Linear probes", paper="arXiv:1610.01644", side="privacy", better="gold", unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}}, level="deep", passes=3, means=MEANS,
)  # fmt: skip
FOLDS = 4


def linear_probe_auc() -> Attack:
    """AUC of a logistic probe of the last layer's states, forget against holdout, cross-fitted.

    Whole groups are held out where examples carry `group`, so that the probe cannot learn names. The
    last layer is taken and not the best one, which would be chosen by chance; `curve` has all layers.
    """

    def attack(target: Target) -> Found:
        states = target.states_of(target.who)
        if not states:
            raise NotMeasured("the model has no layers that we know")
        n = len(target.forget)
        rows = [*target.forget, *target.splits["holdout"]]
        side = np.arange(len(rows)) < n
        groups = _groups([row.get("group") for row in rows])
        if min(len(set(groups[side])), len(set(groups[~side]))) < FOLDS:
            raise NotMeasured(f"a side has fewer than {FOLDS} groups (or examples)")
        scores = [_probe(states[path], side, groups) for path in states]
        found = [compared(score[side], score[~side]) for score in scores]
        curve = [{"x": level, "value": one.figure.value} for level, one in enumerate(found)]
        return Found(found[-1].figure, more=found[-1].more, curve=curve)

    return attack


def _groups(names: list[object]) -> np.ndarray:
    keys = (
        [str(name) for name in names] if all(name is not None for name in names) else list(map(str, range(len(names))))
    )
    return np.unique(keys, return_inverse=True)[1]


def _probe(states_ND: np.ndarray, side: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """[N] scores by probes that did not see the example's group; folds are balanced by side."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(probe, states_ND, side, groups=groups, cv=folds, method="decision_function"))
