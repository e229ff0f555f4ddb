"""Membership from the sequence of a federation's models: what its server can tell of a client's rows."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.membership import MEANS, compare
from expunge.attacks.shared.rounds import leaving_clients, losses, sequence_of
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.models.history import FEDERATED

CARD = AttackCard(
    "Membership from the models of all rounds",
    paper="arXiv:1812.00910",
    adversary="weights, all that a federation's server kept of its rounds",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=(FEDERATED, "labels"),
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("own",),
    passes=24,
    means=MEANS + " It takes a server that kept all rounds (`history: all`). A model after a departure has no record, "
    "so that it is measured on the model before and on gold: what erases it is the deletion of the record.",
)


def rounds_auc() -> Attack:
    """AUC of forget against holdout by low loss, averaged over the models of all rounds (after Nasr et al. 2019).

    `own`: by how much the leaving clients' own training lowered a row's loss, averaged over the rounds in which they
    took part: the server sees their models before it averages. The paper learns its attack from rows that are known to
    be members; here nothing is learned.
    """

    def attack(target: Target) -> Found:
        kept = sequence_of(target)
        forget, holdout = target.forget, target.splits["holdout"]
        leaving = leaving_clients(target)
        with target.disposable() as model:
            last = {name: value.clone() for name, value in model.module.state_dict().items()}
            begins = {one.number: losses(model, one.before, forget, holdout) for one in kept}
            ends = losses(model, last, forget, holdout)
            lowered = [
                begins[one.number] - losses(model, update.weights, forget, holdout)
                for one in kept
                for update in one.updates
                if update.client in leaving
            ]
        common = np.mean([*list(begins.values())[1:], ends], axis=0)
        sides = (forget, holdout)
        figure = compare(-common[: len(forget)], -common[len(forget) :], f"{len(kept)} rounds", rows=sides)
        if not lowered:
            return Found(figure)
        drop = np.mean(lowered, axis=0)
        own = compare(drop[: len(forget)], drop[len(forget) :], f"{len(lowered)} updates", rows=sides)
        return Found(figure, more={"own": ("auc", "gold", own)})

    return attack
