"""Probes that the user wrote."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import MEANS, figure_of, plain_probability
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target

KINDS = ("rephrased", "translated", "multi_hop", "alias", "cloze", "other")
CARD = AttackCard(
    "Your own probes",
    paper="baseline",
    adversary="logits; questions of your own",
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
    """Ask each question of `probes` as it is, for its own answer; one figure per kind and one for all.

    Per-token probability of the answer. A probe that names its example under `of` is also one of the wordings that the
    attack of its kind tries, where the best counts.
    """

    def attack(target: Target) -> Found:
        values_N = plain_probability(target, "probes")
        kinds = np.array([str(row.get("kind") or KINDS[-1]) for row in target.splits["probes"]])
        more = {
            kind: ("share", "gold", figure_of(only(values_N, kinds == kind))) for kind in KINDS if (kinds == kind).any()
        }
        return Found(figure_of(values_N, f"{len(values_N)} probes"), values_N, more=more)

    return attack
