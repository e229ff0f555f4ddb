"""Sharpness-aware minimisation of the forget term."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Gt
from torch import nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods.updates._backward import backward

CARD = MethodCard("Sharpness-aware unlearning", paper="arXiv:2502.05374", equation="SAM on the forget loss")
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "sam"}


def sam(*, rho: Annotated[float, Gt(0)] = 0.01) -> Update:
    """Take the forget gradient at the worst point nearby, so that relearning is slower.

    grad L_f at w + rho g/|g| with g = grad L_f(w), plus grad L_r(w).
    """

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        backward(losses, "forget")
        losses.reduce_gradients(parameters)
        moved = [p for p in parameters if p.grad is not None]
        if moved:
            norm = torch.stack([p.grad.norm() for p in moved]).norm().clamp(min=1e-12)  # type: ignore[union-attr]
            with torch.no_grad():
                # The old values take the gradients' place, so that they come back bit for bit.
                for p in moved:
                    step, p.grad = p.grad * (rho / norm), None
                    p.sam_before = p.detach().clone()  # type: ignore[attr-defined]
                    p.add_(step)
            backward(losses, "forget")
            with torch.no_grad():
                for p in moved:
                    p.copy_(p.sam_before)  # type: ignore[attr-defined]
                    del p.sam_before  # type: ignore[attr-defined]
        backward(losses, "retain")
        losses.reduce_gradients(parameters)

    return Update(update)
