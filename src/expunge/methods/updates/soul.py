"""Second-order unlearning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods.updates._backward import backward

CARD = MethodCard(
    "Second-order unlearning (SOUL) by Sophia", paper="arXiv:2404.18239", equation="6, clipped Newton step"
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "soul"}
EVERY = 10
"""Steps between estimates of the curvature."""


class Sophia(torch.optim.Optimizer):
    """Momentum over a running diagonal curvature, each entry's step clipped at the rate (arXiv:2305.14342).

    The curvature is the squared batch gradient: the Gauss-Newton diagonal up to the sampled labels.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], gamma: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "betas": betas, "gamma": gamma})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step from `.grad`; the closure is not called."""
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros(())
                    state["momentum"], state["curvature"] = torch.zeros_like(p), torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - first)
                if int(state["step"]) % EVERY == 0:
                    state["curvature"].lerp_(p.grad.square(), 1 - second)
                state["step"] += 1
                bounded = state["momentum"] / (group["gamma"] * state["curvature"]).clamp(min=1e-12)
                p.add_(bounded.clamp(-1.0, 1.0), alpha=-group["lr"])


class Soul(Update):
    """The update of soul(): the plain gradient, with an optimiser of its own."""

    def __init__(self, betas: tuple[float, float], gamma: float) -> None:
        self.betas, self.gamma = betas, gamma

    def __call__(self, losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        backward(losses)
        losses.reduce_gradients(parameters)

    def optimiser(self, parameters: Sequence[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        return Sophia(parameters, rate, self.betas, self.gamma)


def soul(
    *,
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.95,
    gamma: Annotated[float, Gt(0)] = 0.04,
) -> Update:
    """Descend with Sophia: each entry moves by momentum over curvature, at most by the learning rate.

    beta1, beta2: decays of momentum and curvature; gamma: factor on the curvature.
    """
    return Soul((beta1, beta2), gamma)
