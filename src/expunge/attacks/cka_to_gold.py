"""Similarity to gold, layer by layer."""

from __future__ import annotations

import numpy as np
from scipy import special

from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.hidden_states import cka
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "CKA with gold",
    paper="arXiv:1905.00414",
    adversary="hidden states of the model and of gold",
    side="robustness",
    better="higher",
    unit="share",
    needs={"forget": {"examples"}},
    level="deep",
    passes=1,
    no_control="gold, with which it compares, is observed later",
    means="How similar the layers' states on the forget set are to gold's; two golds with different seeds do not "
    "reach 1 either, and states may be similar while single facts differ.",
)
MIN_EXAMPLES = 5


def cka_to_gold() -> Attack:
    """Linear CKA of the states on the forget set with gold's, at the layer where it is lowest.

    The interval is the jackknife's over the examples, at that layer (a bootstrap's repeated rows
    raise CKA); `curve` has all layers.
    """

    def attack(target: Target) -> Found:
        gold = target.states_of("gold")
        if not gold:
            raise NotMeasured("no gold model, or its layers are unknown or have other names")
        ours = target.states_of(target.role)
        assert ours is not None
        n = len(target.forget)
        if n < MIN_EXAMPLES:
            raise NotMeasured(f"fewer than {MIN_EXAMPLES} forget examples")
        pairs = [(ours[path][:n], gold[path][:n]) for path in ours if path in gold]
        values = [cka(a, b) for a, b in pairs]
        worst = int(np.argmin(values))
        a, b = pairs[worst]
        left_N = np.array([cka(np.delete(a, i, 0), np.delete(b, i, 0)) for i in range(n)])
        half = float(special.stdtrit(n - 1, 0.975)) * float(
            ((n - 1) / n * ((left_N - left_N.mean()) ** 2).sum()) ** 0.5
        )
        low, high = max(0.0, values[worst] - half), min(1.0, values[worst] + half)
        curve = [{"x": level, "value": value} for level, value in enumerate(values)]
        figure = Figure(values[worst], low, high, n, why=f"lowest at layer {worst}")
        return Found(figure, curve=curve)

    return attack
