"""Linear probes on the layers."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.linear_classifier import cross_validated_auc
from expunge.attacks.shared.membership import MEANS
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "Linear probes",
    paper="arXiv:1610.01644",
    adversary="hidden states; labelled members and unseen data",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    passes=3,
    means=MEANS,
)


def linear_probe_auc() -> Attack:
    """AUC of a ridge on the last layer's states, forget against holdout, cross-validated (Alain and Bengio 2016).

    Whole groups are held out where examples have `group`, so that the probe cannot learn names, and
    the interval comes from permutations of the sides, as for the blind baseline. The last layer is
    taken, not the best one, which would be picked by chance; `curve` has all layers.
    """

    def attack(target: Target) -> Found:
        states = target.states_of(target.role)
        if not states:
            raise NotMeasured("the model's layers are unknown")
        n = len(target.forget)
        rows = [*target.forget, *target.splits["holdout"]]
        names = [row.get("group") for row in rows]
        groups = names if all(name is not None for name in names) else list(range(len(rows)))
        if min(len(set(map(str, groups[:n]))), len(set(map(str, groups[n:])))) < 2:
            raise NotMeasured("a side has fewer than two groups (or examples)")
        found = [cross_validated_auc(_kernel(value), n, groups) for value in states.values()]
        curve = [{"x": level, "value": one.value} for level, one in enumerate(found)]
        why = "groups held out" if groups is names else ""
        return Found(Figure(*found[-1], n=len(rows), why=why), curve=curve)

    return attack


def _kernel(states_ND: np.ndarray) -> np.ndarray:
    """[N, N] cosines of the standardised states."""
    rows = states_ND - states_ND.mean(axis=0)
    rows = rows / np.maximum(rows.std(axis=0), 1e-12)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows @ rows.T)
