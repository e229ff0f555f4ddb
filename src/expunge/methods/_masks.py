"""Which entries of the weights may move: the parameters, and masks by rank."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.core.contracts import Model


def movable(model: Model) -> dict[str, torch.nn.Parameter]:
    """Every floating parameter by name, trainable and in float32."""
    found = {}
    for name, parameter in model.module.named_parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
            found[name] = parameter
    return found


def largest(scores: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks that keep the largest `share` of all entries, over all tensors together."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    count = min(len(flat), max(1, round(share * len(flat))))
    least = flat.kthvalue(len(flat) - count + 1).values
    return {name: (score >= least) & (score > 0) for name, score in scores.items()}
