"""Cross-entropy with a fading l1 penalty."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Step

CARD = MethodCard(
    "Fine-tuning with an l1 penalty",
    paper="arXiv:2304.04934",
    equation="4",
    needs={"retain": {"nll"}},
)


class Sparsifying(LossTerm):
    """The loss of l1(), over the weights of the model that it was declared on."""

    def __init__(self, gamma: float, steps: int) -> None:
        self.gamma, self.steps = gamma, steps

    def declare(self, model: Model) -> None:
        self.module = model.module

    def __call__(self, step: Step) -> Tensor:
        strength = self.gamma * max(0.0, 1 - step.index / self.steps)
        size = torch.stack([p.abs().sum() for p in self.module.parameters() if p.requires_grad]).sum()
        return step["retain"].nll + step.share * strength * size


def l1(*, gamma: Annotated[float, Gt(0)] = 5e-4, steps: Annotated[int, Gt(0)] = 100) -> LossTerm:
    """Go on training on retain with an l1 penalty that shrinks every weight not needed there.

    Mean NLL per position plus gamma(t) |theta|_1; gamma falls to 0 over `steps` steps.
    """
    return Sparsifying(gamma, steps)
