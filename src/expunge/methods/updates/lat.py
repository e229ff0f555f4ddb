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
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "lat"}


def lat(
    *,
    epsilon: Annotated[float, Gt(0)] = 0.5,
    inner_steps: Annotated[int, Ge(1)] = 2,
    layer: int | None = None,
) -> Update:
    """Forget even when an adversary nudges the hidden states towards the knowledge.

    At one layer's output a perturbation of each position is raised against the forget loss by
    inner_steps normalised steps, to at most epsilon times the state's own norm; the weights then go
    down the loss under it. The retain term stays plain.
    """

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        path = losses.model.blocks[choose_layer(losses.model, layer)]
        block = losses.model.module.get_submodule(path)
        for micro in losses:
            delta: list[Tensor] = []

            def nudge(_module: nn.Module, _inputs: Any, output: Any, delta: list[Tensor] = delta) -> Any:
                state = output[0] if isinstance(output, tuple) else output
                if not delta:
                    delta.append(torch.zeros_like(state, requires_grad=True))
                bound = epsilon * state.detach().norm(dim=-1, keepdim=True)
                moved = state + delta[0] * bound
                return (moved, *output[1:]) if isinstance(output, tuple) else moved

            handle = block.register_forward_hook(nudge)
            try:
                for _ in range(inner_steps):
                    (loss,) = micro("forget").values()
                    (grad,) = torch.autograd.grad(loss, delta, allow_unused=True) if delta else (None,)
                    if grad is None:  # nothing to forget in this micro-batch
                        break
                    with torch.no_grad():
                        step = grad / grad.norm(dim=-1, keepdim=True).clamp(min=1e-12)
                        new = delta[0] + step / inner_steps
                        delta[0] = new / new.norm(dim=-1, keepdim=True).clamp(min=1.0)
                    delta[0].requires_grad_(True)
                (loss,) = micro("forget").values()
                if delta:
                    delta[0].requires_grad_(False)
                loss.backward()
            finally:
                handle.remove()
        backward(losses, "retain")
        losses.reduce_gradients(parameters)

    return Update(update)
