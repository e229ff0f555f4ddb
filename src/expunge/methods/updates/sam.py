"""Sharpness-aware minimisation of the forget term."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods.updates._backward import backward

CARD = MethodCard(
    "Sharpness-aware unlearning",
    paper="arXiv:2502.05374",
    equation="SAM on the forget loss",
    fidelity="faithful",
    shown="After relearning on forget examples as much of the forget NLL is left as under the plain update; more is "
    "not shown.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "sam"}


def sam(*, rho: Annotated[float, Gt(0)] = 0.01) -> Update:
    """Take the forget gradient at the worst nearby weights, so that relearning is slower.

    grad L_f at w + rho g/|g| with g = grad L_f(w), plus grad L_r(w).
    """

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        backward(losses, "forget")
        losses.reduce_gradients(parameters)
        if before := _climb(parameters, rho):
            backward(losses, "forget")
            with torch.no_grad():
                for p, value in before:
                    p.copy_(value)
        backward(losses, "retain")
        losses.reduce_gradients(parameters)

    return Update(update)


@torch.no_grad()
def _climb(parameters: Sequence[nn.Parameter], rho: float) -> list[tuple[nn.Parameter, Tensor]]:
    """Move to w + rho g/|g| and clear the gradients; return each moved parameter with its value before.

    The values take the gradients' place in memory, so that the weights come back bit for bit at no further cost.
    """
    norms = [p.grad.norm() for p in parameters if p.grad is not None]
    if not norms:
        return []
    scale = rho / torch.stack(norms).norm().clamp(min=1e-12)
    before = []
    for p in parameters:
        if p.grad is not None:
            before.append((p, p.detach().clone()))
            p.add_(p.grad * scale)
            p.grad = None
    return before
