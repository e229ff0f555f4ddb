"""An adapter, trained on innocent data and merged."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING, answer_probability, figure_of, teach
from expunge.attacks.shared.rounding import require_matrices
from expunge.core.card import AttackCard
from expunge.core.random import seed_libraries
from expunge.evaluation.attack import Attack, Found, Target
from expunge.models.adapters import insert, linear_targets
from expunge.models.weights import fold

CARD = AttackCard(
    "LoRA merge",
    paper="arXiv:2106.09685",
    adversary="fine-tuning with other data",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="deep",
    passes=20,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)


def lora_merged(*, rank: Annotated[int, Gt(0)] = 8, steps: Annotated[int, Gt(0)] = 24) -> Attack:
    """Train a low-rank adapter on retain data, merge it into the weights, and ask: before, and after.

    This is what users of a published model do first. The adapter learns at the rate that the model was trained with;
    the merged weights are those that would be published again. The higher of the two figures counts.
    """

    def attack(target: Target) -> Found:
        require_matrices(target)
        plain = target.plain[target.role]
        with target.disposable() as model, torch.random.fork_rng(devices=[]):
            seed_libraries(target.derive("lora_merged"), "lora")
            insert(
                model.module,
                rank=rank,
                alpha=2 * rank,
                dropout=0.0,
                targets=linear_targets(model.module),
            )
            try:
                for _ in teach(
                    model,
                    target.splits["retain"],
                    steps=steps,
                    rate=target.rate,
                    seed=target.derive("lora"),
                    every=steps,
                ):
                    pass
            finally:
                fold(model.module)
            merged = answer_probability(model, target.forget)
        recovered_N = np.asarray(merged if merged.mean() > plain.mean() else plain)
        return Found(figure_of(recovered_N, f"rank {rank}, {steps} steps on retain"), recovered_N)

    return attack
