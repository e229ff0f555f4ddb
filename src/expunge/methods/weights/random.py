"""A random mask: the baseline of every mask that chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.methods._masks import make_trainable, mask_largest

CARD = MethodCard(
    "Random mask",
    paper="baseline",
    equation="entries drawn by seed",
    means="What a mask of this share does that knows nothing: others are worth their work by what they do beyond it.",
    fidelity="faithful",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "random"}


def random(*, density: Annotated[float, Gt(0), Le(1)] = 0.5) -> Weights:
    """Train only a random part of the weights; all others stay as they are, bit for bit.

    density: share of entries that are trainable, over all tensors together.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        scores = {
            name: 1 - torch.rand(p.shape, generator=context.generator("random", name)).to(p.device)  # above 0
            for name, p in parameters.items()
        }
        return Trainable(parameters, mask_largest(scores, density))

    return choose
