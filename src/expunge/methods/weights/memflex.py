"""MemFlex: tensors, or pairs of LoRA matrices, selected by their gradients on forget and retain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch.nn.functional import cosine_similarity

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.core.errors import BadInput
from expunge.core.random import permutation, seed_libraries
from expunge.methods._masks import make_trainable
from expunge.methods._statistics import gradient
from expunge.models.adapters import insert
from expunge.models.weights import fold

CARD = MethodCard(
    "MemFlex: gradient localisation",
    paper="arXiv:2407.01920",
    equation="4",
    needs={"forget": (), "retain": ()},
    fidelity="simplified",
    leaves_out="the published threshold (a quantile stands for it), and by default LoRA's matrices (`rank`)",
    shown="At equal forget NLL it keeps as much of retain as training all tensors, and trains at most half of them.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "memflex"}
SAMPLE = 256
"""Retain examples that the localisation reads, at most."""


def _whole_tensors(model: Model) -> dict[str, list[str]]:
    return {name: [name] for name in make_trainable(model)}


def _adapter_pairs(model: Model, rank: int, context: Context) -> dict[str, list[str]]:
    """Name of each new LoRA matrix B -> names of A and B."""
    fold(model.module)
    seed_libraries(context.seed, context.stage, "memflex")
    names = insert(model.module, rank=rank, alpha=2 * rank, dropout=0.0, targets="all-linear")
    return {name: [name.replace("lora_B", "lora_A"), name] for name in names if "lora_B" in name}


def memflex(
    *,
    size: Annotated[float, Ge(0), Le(1)] = 0.5,
    angle: Annotated[float, Gt(0), Le(1)] = 0.92,
    rank: Annotated[int, Gt(0)] | None = None,
) -> Weights:
    """Train only whole tensors whose forget gradient is large and not aligned with retain's.

    size: quantile of the forget gradient's mean magnitude that a tensor must exceed. angle: cosine
    of the two gradients that it must stay below. rank: of LoRA matrices, as published: a pair A, B is then chosen by
    B's gradient (A's is zero while B is), and the others are frozen; the learning rate may be five times as high.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        tensors = _adapter_pairs(model, rank, context) if rank else _whole_tensors(model)
        parameters = dict(model.module.named_parameters())
        retain = splits["retain"]
        rows = [retain[i] for i in sorted(permutation(len(retain), context.seed, context.stage, "memflex")[:SAMPLE])]
        forget_slope, retain_slope = gradient(model, splits["forget"]), gradient(model, rows)
        means = {name: float(forget_slope[name].abs().mean()) for name in tensors}
        least = float(torch.tensor(list(means.values())).quantile(size))
        trainable = {}
        for name, moved in tensors.items():
            cosine = float(cosine_similarity(forget_slope[name].flatten(), retain_slope[name].flatten(), dim=0))
            moves = means[name] >= least and means[name] > 0 and cosine < angle
            for one in moved:
                parameters[one].requires_grad_(moves)
                if moves:
                    trainable[one] = parameters[one]
        if not trainable:
            raise BadInput.of("method.memflex.angle", angle, "leaves no weight trainable", "raise angle, or lower size")
        return Trainable(trainable)

    return choose
