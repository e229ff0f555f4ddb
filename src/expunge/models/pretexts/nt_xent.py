"""NT-Xent, the loss of SimCLR."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn.functional import normalize

from expunge.core.card import Card
from expunge.models.pretext import Pretext, ascend_alone

CARD = Card(
    "Normalised temperature-scaled cross-entropy",
    paper="arXiv:2002.05709",
    equation="1",
    means="How surely each view finds the other among the views of the examples around it: 0 nats where it is alone "
    "in its direction, the logarithm of the number of candidates where all look alike.",
)


class NTXent(Pretext):
    """The loss of nt_xent()."""

    def __init__(self, temperature: float, together: int, size: int) -> None:
        self.temperature, self.together, self.size = temperature, together, size

    def head(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.size))

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        z_2BP = normalize(head(h_2BD.flatten(0, 1)), dim=-1).unflatten(0, h_2BD.shape[:2])
        return ascend_alone(self._contrast(z_2BP, z_2BP), self._contrast(z_2BP, z_2BP.detach()))

    def _contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] mean over an example's views of the cross-entropy; its negatives are taken from `others`."""
        count = z_2BP.shape[1]
        partner_B = (z_2BP[0] * z_2BP[1]).sum(-1) / self.temperature
        if count == 1:
            return 0 * partner_B
        alike_2BR = z_2BP @ others_2BP.flatten(0, 1).T / self.temperature
        own_BR = torch.eye(count, dtype=torch.bool, device=z_2BP.device).repeat(1, 2)
        # A short batch counts as a whole one would: its examples' losses compare with all others.
        scale = math.log((self.together - 1) / (count - 1))
        negatives_2B = alike_2BR.masked_fill(own_BR, -torch.inf).logsumexp(-1) + scale
        return (torch.logaddexp(partner_B, negatives_2B) - partner_B).mean(0)


def nt_xent(
    *,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """Let each view of an example find the other one among the views of a batch.

    -log(exp(z·z'/temperature) / (the same + the sum of exp(z·n/temperature) over the negatives n)), the mean over both
    views, in nats; z: unit vectors [size] that a hidden layer makes of the embedding. The negatives are both views of
    all other examples of the batch, and count as those of `together` examples whatever the batch's size; a batch of
    `together` examples has the paper's loss. In eval mode so many are read together.
    """
    return NTXent(temperature, together, size)
