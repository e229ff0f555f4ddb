"""Likeness to gold, layer by layer."""

from __future__ import annotations

import numpy as np

from expunge.attacking import Attack, Found, Target
from expunge.core.card import Card
from expunge.evidence import Figure, NotMeasured
from expunge.states import cka

CARD = Card(
    "CKA with gold", paper="arXiv:1905.00414", side="robustness", better="higher", unit="share",
    needs={"forget": {"examples"}}, level="deep", passes=1,
    means="How alike the layers' states on the forget set are to gold's; two golds of other seeds are not at 1 either, "
          "and states may be alike while single facts differ.",
)  # fmt: skip
RESAMPLES = 500


def cka_to_gold() -> Attack:
    """Linear CKA of the states on the forget set with gold's, at the layer where it is lowest.

    Percentile bootstrap over the examples, at that layer; `curve` has all layers.
    """

    def attack(target: Target) -> Found:
        gold = target.states_of("gold")
        if gold is None:
            raise NotMeasured("no gold model, or its layers are others")
        ours = target.states_of(target.who)
        assert ours is not None
        n = len(target.forget)
        if n < 3:
            raise NotMeasured("fewer than three forget examples")
        pairs = [(ours[path][:n], gold[path][:n]) for path in ours if path in gold]
        values = [cka(a, b) for a, b in pairs]
        worst = int(np.argmin(values))
        a, b = pairs[worst]
        draw = np.random.default_rng(0)
        drawn = [cka(a[rows], b[rows]) for rows in draw.integers(n, size=(RESAMPLES, n))]
        low, high = (float(np.quantile(drawn, q)) for q in (0.025, 0.975))
        curve = [{"x": level, "value": value} for level, value in enumerate(values)]
        figure = Figure(
            values[worst], min(low, values[worst]), max(high, values[worst]), n, why=f"lowest at layer {worst}"
        )
        return Found(figure, curve=curve)

    return attack
