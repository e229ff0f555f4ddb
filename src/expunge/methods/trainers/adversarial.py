"""Adversarial training: each step descends the loss of pictures that were moved up it, within a radius."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from expunge.core.context import Context
from expunge.core.contracts import Example, Gradient, Losses, Model, Update
from expunge.methods._seen import altering, check_pictures
from expunge.methods.objective import plain_training

NAME = "adversarial"


def check(model: Model, data: Sequence[Example], **options: object) -> None:
    """Raises BadInput unless the model is a classifier of pictures."""
    check_pictures(model, data, NAME)


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    radius: Annotated[float, Gt(0)] = 0.3,
    moves: Annotated[int, Ge(1)] = 3,
) -> Model:
    """Minimise the loss of the worst pictures within a radius (Madry et al., arXiv:1706.06083, equation 2.1).

    radius: the largest change of a pixel, in the units that the network is given; a radius as large as that of
    error-minimising noise takes the noise's advantage away. moves: steps up the loss, by the sign of the gradient, each
    of radius 2 / moves; a step of training costs as many more. Pixels stay in the batch's range.
    """
    check(fresh, data)
    return plain_training(update=Update(_against(radius, moves)))(fresh, {"retain": list(data)}, context)


class Perturbation:
    """The shift of a batch of pictures."""

    def __init__(self, radius: float) -> None:
        self.radius = radius
        self.shift: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The pictures under the shift, which the first call draws."""
        if self.shift is None:
            self.shift = self.radius * (2 * torch.rand_like(x) - 1)
            self.shift.requires_grad_(True)
        return (x + self.shift).clamp(x.min(), x.max()) if x.numel() else x

    def ascend(self, loss: Tensor, step: float) -> None:
        """Take one step up the loss, within the radius."""
        assert self.shift is not None
        (slope,) = torch.autograd.grad(loss, [self.shift], allow_unused=True)
        if slope is not None:
            self.shift = (self.shift.detach() + step * slope.sign()).clamp(-self.radius, self.radius)
            self.shift.requires_grad_(True)


def _against(radius: float, moves: int) -> Gradient:
    """The gradient of a step under the worst shift."""

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        for micro in losses:
            perturbation = Perturbation(radius)
            with altering(losses.model.module, perturbation):
                for _ in range(moves):
                    (loss,) = micro().values()
                    perturbation.ascend(loss, 2 * radius / moves)
                if perturbation.shift is not None:
                    perturbation.shift.requires_grad_(False)
                (loss,) = micro().values()
                loss.backward()
        losses.reduce_gradients(parameters)

    return update
