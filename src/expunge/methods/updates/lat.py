"""Latent adversarial training of the forget term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods._layers import choose_layer
from expunge.methods.updates._backward import backward

CARD = MethodCard(
    "Latent adversarial training of the forget term",
    paper="arXiv:2407.15549",
    equation="2, untargeted inner maximisation",
    capabilities={"mlp"},
    fidelity="simplified",
    leaves_out="perturbations of several layers, and projected gradient steps beyond two",
    shown="A soft prompt that half of the forget set trained brings out less of the other half than after plain NPO.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "lat"}


def lat(
    *,
    epsilon: Annotated[float, Gt(0)] = 0.5,
    inner_steps: Annotated[int, Ge(1)] = 2,
    layer: int | None = None,
) -> Update:
    """Forget even when an adversary nudges the hidden states towards the knowledge.

    A perturbation of one layer's output at each position ascends the forget loss by inner_steps normalised steps, to at
    most epsilon times the state's own norm; the weights then descend the loss under it. The retain term stays plain.
    """

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        block = losses.model.module.get_submodule(losses.model.blocks[choose_layer(losses.model, layer)])
        for micro in losses:
            perturbation = Perturbation(epsilon)
            handle = block.register_forward_hook(perturbation.hook)
            try:
                for _ in range(inner_steps):
                    (loss,) = micro("forget").values()
                    if not perturbation.ascend(loss, inner_steps):  # nothing to forget in this micro-batch
                        break
                (loss,) = micro("forget").values()
                perturbation.freeze()
                loss.backward()
            finally:
                handle.remove()
        backward(losses, "retain")
        losses.reduce_gradients(parameters)

    return Update(update)


class Perturbation:
    """An adversary's shift of a block's output: one vector per position, at most epsilon times the state's norm."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon
        self.delta: Tensor | None = None
        """In units of the bound; created by the first forward."""

    def hook(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Add the shift to the block's output."""
        state = output[0] if isinstance(output, tuple) else output
        if self.delta is None:
            self.delta = torch.zeros_like(state, requires_grad=True)
        bound = self.epsilon * state.detach().norm(dim=-1, keepdim=True)
        shifted = state + self.delta * bound
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

    def ascend(self, loss: Tensor, steps: int) -> bool:
        """Take one of `steps` normalised steps up the loss; False where the loss does not depend on the shift."""
        if self.delta is None:
            return False
        (gradient,) = torch.autograd.grad(loss, [self.delta], allow_unused=True)
        if gradient is None:
            return False
        with torch.no_grad():
            step = gradient / gradient.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            new = self.delta + step / steps
            self.delta = new / new.norm(dim=-1, keepdim=True).clamp(min=1.0)
        self.delta.requires_grad_(True)
        return True

    def freeze(self) -> None:
        """Take the shift as given, so that the weights alone get a gradient."""
        if self.delta is not None:
            self.delta.requires_grad_(False)
