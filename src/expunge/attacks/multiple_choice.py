"""Multiple choice."""

from __future__ import annotations

import numpy as np

from expunge.core.card import AttackCard
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.intervals import share
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "Multiple choice",
    paper="arXiv:2506.07795",
    adversary="logits of given options",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    fields={"forget": ("perturbed_answer",)},
    level="standard",
    passes=0,
    means="How often the true answer is more likely than all false ones; chance is one in the number of options, and "
    "what counts is how far it lies above gold's.",
)


def multiple_choice() -> Attack:
    """The share of examples whose true answer is more likely per token than each of its perturbed ones.

    The paraphrase replaces the answer where there is one, since the model was trained on the answer's
    own wording. It is computed from the truth ratio's readout, without a forward pass. A model that
    merely stopped saying the answer still prefers it.
    """

    def attack(target: Target) -> Found:
        readout = target.readouts["forget"]
        if readout.perturbed is None or not any(len(row) for row in readout.perturbed):
            raise NotMeasured("no example has a perturbed_answer")
        paraphrased = readout.paraphrased or [np.zeros(0)] * len(readout)
        right = [
            bool(len(false)) and (true.mean() if len(true) else own) < false.min()
            for own, true, false in zip(readout.mean_nll_N, paraphrased, readout.perturbed, strict=True)
        ]
        counts = np.array([len(false) > 0 for false in readout.perturbed])
        recovered_N = only(np.array(right, dtype=float), counts)
        n = int(counts.sum())
        return Found(Figure(*share(sum(right), n), n=n, values=recovered_N), recovered_N)

    return attack
