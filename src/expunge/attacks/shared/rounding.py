"""Simulated quantisation and pruning: weights are rounded or dropped in place, in floating point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.attacks.shared.recovery import answer_probability, figure_of
from expunge.evaluation.attack import Found, Target


def round_weights(weight_OI: Tensor, bits: int) -> Tensor:
    """[O, ...] weights, each output channel rounded to 2^bits - 1 levels symmetric about 0.

    The scale of a channel is its largest magnitude over 2^(bits - 1) - 1, as in per-channel integer
    kernels (Jacob et al. 2018); a channel of zeros stays.
    """
    most = 2 ** (bits - 1) - 1
    scale = weight_OI.abs().flatten(1).amax(1).clamp(min=1e-12) / most
    scale = scale.view(-1, *[1] * (weight_OI.dim() - 1))
    return (weight_OI / scale).round().clamp(-most, most) * scale


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """The weights that quantisers and pruners change: all of two dimensions or more."""
    return [parameter for parameter in module.parameters() if parameter.dim() >= 2]


@torch.no_grad()
def quantised_knowledge(target: Target, bits: int) -> Found:
    """The model's knowledge of the forget set with all its matrices rounded."""
    with target.disposable() as model:
        for parameter in matrices(model.module):
            parameter.copy_(round_weights(parameter, bits))
        recovered_N = answer_probability(model, target.forget)
    return Found(figure_of(recovered_N, f"{bits} bits, simulated"), recovered_N)
