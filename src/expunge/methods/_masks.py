"""Trainable entries of the weights: the parameters, and masks by rank."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.core.contracts import Model


def make_trainable(model: Model) -> dict[str, torch.nn.Parameter]:
    """Make every floating-point parameter trainable and float32; return them by name."""
    trainable = {}
    for name, parameter in model.module.named_parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
            trainable[name] = parameter
    return trainable


def mask_largest(scores: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return masks of the largest `share` of all entries, over all tensors together."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    count = min(len(flat), max(1, round(share * len(flat))))
    least = flat.kthvalue(len(flat) - count + 1).values
    return {name: (score >= least) & (score > 0) for name, score in scores.items()}
