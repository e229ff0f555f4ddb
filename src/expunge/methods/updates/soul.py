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
    "Second-order unlearning (SOUL) by Sophia",
    paper="arXiv:2404.18239",
    equation="6, clipped Newton step",
    fidelity="simplified",
    leaves_out="labels sampled from the model for the curvature: the loss's own serve",
    shown="After as many steps of NPO as AdamW takes it has forgotten more and kept more, over three seeds.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "soul"}
EVERY = 10
"""Steps between estimates of the curvature."""


class Sophia(torch.optim.Optimizer):
    """Momentum over a running diagonal curvature, each entry's step clipped at the rate (arXiv:2305.14342).

    The curvature is the Gauss-Newton-Bartlett estimate (algorithm 2): the squared gradient of the batch's mean loss
    times the positions that it averages over. It takes the loss's own labels where the paper samples them.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float], gamma: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "betas": betas, "gamma": gamma})

    @torch.no_grad()
    def estimate(self, positions: int) -> None:
        """Add `.grad`, a mean over `positions`, to the curvature, in every EVERY-th step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and int(self._state(p)["step"]) % EVERY == 0:
                    self.state[p]["curvature"].lerp_(positions * p.grad.square(), 1 - group["betas"][1])

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step from `.grad`; the closure is not called."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self._state(p)
                state["momentum"].lerp_(p.grad, 1 - group["betas"][0])
                state["step"] += 1
                bounded = state["momentum"] / (group["gamma"] * state["curvature"]).clamp(min=1e-12)
                p.add_(bounded.clamp(-1.0, 1.0), alpha=-group["lr"])

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        """The parameter's state, zero before its first step."""
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"], state["curvature"] = torch.zeros_like(p), torch.zeros_like(p)
        return state


class Soul(Update):
    """The update of soul(): the plain gradient, with an optimiser of its own."""

    def __init__(self, betas: tuple[float, float], gamma: float) -> None:
        self.betas, self.gamma = betas, gamma
        self.sophia: Sophia | None = None

    def __call__(self, losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        backward(losses)
        losses.reduce_gradients(parameters)
        if self.sophia is not None:
            self.sophia.estimate(losses.tokens)  # here, before the gradient's norm is clipped

    def optimiser(self, parameters: Sequence[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        self.sophia = Sophia(parameters, rate, self.betas, self.gamma)
        return self.sophia


def soul(
    *,
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.95,
    gamma: Annotated[float, Gt(0)] = 0.04,
) -> Update:
    """Descend with Sophia: each entry moves by momentum over curvature, at most by the learning rate.

    beta1, beta2: decays of momentum and curvature; gamma: factor on the curvature, which is estimated every tenth step.
    """
    return Soul((beta1, beta2), gamma)
