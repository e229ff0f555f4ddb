"""MemFlex: tensors selected by their gradients on forget and retain."""

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
from expunge.methods._masks import make_trainable
from expunge.methods._statistics import gradient

CARD = MethodCard(
    "MemFlex: gradient localisation",
    paper="arXiv:2407.01920",
    equation="4",
    needs={"forget": (), "retain": ()},
    means="On small models it retains about as much as training all tensors, and trains at most half of them.",
    fidelity="simplified",
    leaves_out="the published threshold (a quantile stands for it) and localisation in LoRA's matrices",
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "memflex"}
SAMPLE = 256
"""Retain examples that the localisation reads, at most."""


def memflex(
    *,
    size: Annotated[float, Ge(0), Le(1)] = 0.5,
    angle: Annotated[float, Gt(0), Le(1)] = 0.92,
) -> Weights:
    """Train only whole tensors whose forget gradient is large and not aligned with retain's.

    size: quantile of the forget gradient's mean magnitude that a tensor must exceed. angle: cosine
    of the two gradients that it must stay below.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        retain = splits["retain"]
        rows = [retain[i] for i in sorted(permutation(len(retain), context.seed, context.stage, "memflex")[:SAMPLE])]
        forget_slope, retain_slope = gradient(model, splits["forget"]), gradient(model, rows)
        means = {name: float(value.abs().mean()) for name, value in forget_slope.items()}
        least = float(torch.tensor(list(means.values())).quantile(size))
        trainable = {}
        for name, parameter in parameters.items():
            cosine = float(cosine_similarity(forget_slope[name].flatten(), retain_slope[name].flatten(), dim=0))
            moves = means[name] >= least and means[name] > 0 and cosine < angle
            parameter.requires_grad_(moves)
            if moves:
                trainable[name] = parameter
        if not trainable:
            raise BadInput.of("method.memflex.angle", angle, "leaves no weight trainable", "raise angle, or lower size")
        return Trainable(trainable)

    return choose
