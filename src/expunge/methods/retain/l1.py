"""Cross-entropy with a fading l1 penalty."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Run, Step

CARD = MethodCard(
    "Fine-tuning with an l1 penalty",
    paper="arXiv:2304.04934",
    equation="4",
    needs={"retain": {"nll"}},
    fidelity="faithful",
    shown="It loses half more of wrong labels learned by heart than plain fine-tuning, at half its gap to gold.",
    distributed=True,
)


class Sparsifying(LossTerm):
    """The loss of l1(), over the weights of the model that it was declared on."""

    def __init__(self, gamma: float, fade: float) -> None:
        self.gamma, self.fade = gamma, fade

    def declare(self, model: Model) -> None:
        self.module = model.module

    def prepare(self, run: Run) -> None:
        """Set the steps over which gamma falls to 0."""
        self.steps = max(1.0, self.fade * run.total)

    def __call__(self, step: Step) -> Tensor:
        strength = self.gamma * max(0.0, 1 - step.index / self.steps)
        size = torch.stack([p.abs().sum() for p in self.module.parameters() if p.requires_grad]).sum()
        return step["retain"].nll + step.share * strength * size


def l1(*, gamma: Annotated[float, Gt(0)] = 5e-4, fade: Annotated[float, Gt(0), Le(1)] = 1.0) -> LossTerm:
    """Go on training on retain with an l1 penalty that shrinks every weight not needed there.

    Mean NLL per position plus gamma(t) |theta|_1; gamma falls to 0 over the first `fade` of the run's steps.
    """
    return Sparsifying(gamma, fade)
