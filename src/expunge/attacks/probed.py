"""Probes that the user wrote."""

from __future__ import annotations

import numpy as np

from expunge.attacks._recovery import MEANS, figure_of, told
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target

KINDS = ("rephrased", "translated", "multi_hop", "alias", "cloze", "other")
CARD = AttackCard(
    "Your own probes",
    paper="baseline",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"probes": {"examples"}},
    level="standard",
    more=KINDS,
    passes=0,
    means=MEANS,
)


def probed() -> Attack:
    """Ask each question of `probes`, as it stands, for its own answer; one figure by kind beside that of all.

    Probability of the answer, a token. Those that name the example which they are `of` are also among the wordings of
    the attack of their kind, where the best counts.
    """

    def attack(target: Target) -> Found:
        values_N = told(target, "probes")
        kinds = np.array([str(row.get("kind") or KINDS[-1]) for row in target.splits["probes"]])
        more = {
            kind: ("share", "gold", figure_of(only(values_N, kinds == kind))) for kind in KINDS if (kinds == kind).any()
        }
        return Found(figure_of(values_N, f"{len(values_N)} probes"), values_N, more=more)

    return attack
