"""Descent on retain under a barrier: each step lowers the forget loss too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods.updates._backward import gradients_of

CARD = MethodCard(
    "Bi-level step with a dynamic barrier",
    paper="arXiv:2401.05779",
    equation="algorithm 1; the factor is that of BOME (arXiv:2209.08709, equation 6)",
    ignores=("forget_weight", "alpha"),
    fidelity="simplified",
    leaves_out="the inner minimisation of the forget loss, of which only the value is used, and that by no gradient",
)
RECIPE = {"forget": "erase_diff", "retain": "cross_entropy", "update": "barrier", "stop": "none"}


def factor_of(forget: Sequence[Tensor | None], retain: Sequence[Tensor | None], eta: float) -> float:
    """The factor on the forget gradient: max(0, eta - <retain, forget> / |forget|^2); 0 where nothing pulls."""
    pairs = [(f, r) for f, r in zip(forget, retain, strict=True) if f is not None]
    size = sum(float(f.double().square().sum()) for f, _ in pairs)
    if size == 0.0:
        return 0.0
    inner = sum(float((f.double() * r.double()).sum()) for f, r in pairs if r is not None)
    return max(0.0, eta - inner / size)


def barrier(*, eta: Annotated[float, Gt(0)] = 1.0) -> Update:
    """Descend the retain loss, and add as much of the forget gradient as lowers that loss at a rate of eta at least.

    g = g_retain + max(0, eta - <g_retain, g_forget> / |g_forget|^2) g_forget, so that <g, g_forget> is never below eta
    |g_forget|^2. The losses' weights, `alpha` and `forget_weight`, would only rescale that and are refused.
    """

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        gradients = {name: gradients_of(losses, name, parameters) for name in ("forget", "retain")}
        factor = factor_of(gradients["forget"], gradients["retain"], eta)
        for p, forget, retain in zip(parameters, gradients["forget"], gradients["retain"], strict=True):
            parts = [part for part in (retain, None if forget is None else factor * forget) if part is not None]
            if parts:
                p.grad = torch.stack(parts).sum(0)

    return Update(update)
