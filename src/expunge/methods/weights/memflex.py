"""MemFlex: localise by gradients where the knowledge sits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch.nn.functional import cosine_similarity

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.methods._masks import movable
from expunge.methods._statistics import gradient

CARD = MethodCard(
    "MemFlex: gradient localisation",
    paper="arXiv:2407.01920",
    equation="4",
    needs={"forget": (), "retain": ()},
    means="On small models it keeps about as much as moving all tensors does, and moves at most half of them.",
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "memflex"}
SAMPLE = 256


def memflex(
    *,
    size: Annotated[float, Ge(0), Le(1)] = 0.5,
    angle: Annotated[float, Gt(0), Le(1)] = 0.92,
) -> Weights:
    """Move only whole tensors whose forget gradient is large and does not run along retain's.

    size: quantile of the forget gradient's mean magnitude that a tensor must exceed. angle: cosine
    of the two gradients that it must stay below.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = movable(model)
        retain = splits["retain"]
        rows = [retain[i] for i in sorted(permutation(len(retain), context.seed, context.stage, "memflex")[:SAMPLE])]
        forget, kept = gradient(model, splits["forget"]), gradient(model, rows)
        means = {name: float(value.abs().mean()) for name, value in forget.items()}
        least = float(torch.tensor(list(means.values())).quantile(size))
        trainable = {}
        for name, parameter in parameters.items():
            along = float(cosine_similarity(forget[name].flatten(), kept[name].flatten(), dim=0))
            chosen = means[name] >= least and means[name] > 0 and along < angle
            parameter.requires_grad_(chosen)
            if chosen:
                trainable[name] = parameter
        if not trainable:
            raise BadInput.of("method.memflex.angle", angle, "leaves no weight to move", "raise angle, or lower size")
        return Trainable(trainable)

    return choose
