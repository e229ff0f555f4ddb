"""Simulated quantisation and pruning: weights are rounded or dropped in place, in floating point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.attacks.shared.recovery import answer_probability, figure_of
from expunge.evaluation.attack import Found, Target
from expunge.evaluation.scores import NotMeasured


def round_weights(weight: Tensor, bits: int, channels: tuple[int, ...] = (0,)) -> Tensor:
    """The weights, each output channel rounded to 2^bits - 1 levels symmetric about 0.

    channels: the axes that count output channels, of [O, I] weights the first. The scale of a channel is its largest
    magnitude over 2^(bits - 1) - 1, as in per-channel integer kernels (Jacob et al. 2018); a channel of zeros stays.
    """
    most = 2 ** (bits - 1) - 1
    within = [axis for axis in range(weight.dim()) if axis not in channels]
    scale = weight.abs().amax(within, keepdim=True).clamp(min=1e-12) / most
    return (weight / scale).round().clamp(-most, most) * scale


def matrices(module: nn.Module) -> list[tuple[nn.Parameter, tuple[int, ...]]]:
    """(weight, axes of its output channels) of all weights that quantisers and pruners change.

    Those are all of two dimensions or more but the biases of experts. A weight that several modules share is listed
    once.
    """
    found: dict[nn.Parameter, tuple[int, ...]] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.dim() >= 2 and not name.endswith("bias"):
                found.setdefault(parameter, output_axes(part, parameter))
    return list(found.items())


def require_matrices(target: Target) -> None:
    """Raises NotMeasured for a model without weights to round or prune."""
    if not matrices(target.model.module):
        raise NotMeasured("the model has no weight matrices")


def output_axes(holder: nn.Module, weight: Tensor) -> tuple[int, ...]:
    """The axes of a weight that count output channels, by the module that holds it.

    First in linear layers [O, I], convolutions [O, I, ...] and embeddings [V, D] (a row a token, as the output layer
    that is tied to them has it); second in GPT-2's Conv1D [I, O] and transposed convolutions [I, O, ...]. Experts have
    [E, O, I], or [E, I, O] where transformers says so and in Llama 4, which does not say it.
    """
    kind = type(holder).__name__
    if kind == "Conv1D" or isinstance(holder, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return (1,)
    if "Experts" in kind and weight.dim() == 3:
        return (0, 2) if getattr(holder, "is_transposed", kind == "Llama4TextExperts") else (0, 1)
    return (0,)


@torch.no_grad()
def quantised_knowledge(target: Target, bits: int) -> Found:
    """The model's knowledge of the forget set with all its matrices rounded."""
    require_matrices(target)
    with target.disposable() as model:
        for parameter, channels in matrices(model.module):
            parameter.copy_(round_weights(parameter, bits, channels))
        recovered_N = answer_probability(model, target.forget)
    return Found(figure_of(recovered_N, f"{bits} bits, simulated"), recovered_N)
