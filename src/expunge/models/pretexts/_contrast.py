"""Parts of in-batch contrasts: a projection to the unit sphere, the cosines of a batch, and which of them count."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from expunge.models.pretext import Pretext, ascend_alone


@dataclass(frozen=True)
class Cosines:
    """Cosines of B examples' views. partner_B: of an example's two views. alike_2BR: of each view with all R = 2B views
    (first views, then second ones); own_BR: which of these are the example's own."""

    partner_B: Tensor
    alike_2BR: Tensor
    own_BR: Tensor

    @classmethod
    def of(cls, z_2BP: Tensor, others_2BP: Tensor) -> Cosines:
        """Of unit vectors; those of the other examples are taken from `others`."""
        own_BR = torch.eye(z_2BP.shape[1], dtype=torch.bool, device=z_2BP.device).repeat(1, 2)
        return cls((z_2BP[0] * z_2BP[1]).sum(-1), z_2BP @ others_2BP.flatten(0, 1).T, own_BR)

    def negatives(self, temperature: float) -> Tensor:
        """[2, B, R] cosines over the temperature, minus infinity for an example's own views."""
        return (self.alike_2BR / temperature).masked_fill(self.own_BR, -torch.inf)


class Contrast(Pretext):
    """A loss between unit vectors [size] that a hidden layer makes of the embeddings.

    What raises it moves an example alone (`ascend_alone`). An example that is alone in its batch has a loss of 0.
    """

    def __init__(self, together: int, size: int) -> None:
        self.together, self.size = together, size

    def head(self, width: int) -> nn.Module:
        return projector(width, self.size)

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        z_2BP = unit_views(head, h_2BD)
        if z_2BP.shape[1] == 1:
            return 0 * z_2BP.sum((0, 2))
        return ascend_alone(self.contrast(z_2BP, z_2BP), self.contrast(z_2BP, z_2BP.detach()))

    @abstractmethod
    def contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] each example's loss; the other examples' views are taken from `others`."""

    def share(self, count: int) -> float:
        """The logarithm of how many of a whole batch's negatives each negative of `count` examples stands for.

        A short batch so counts as a whole one would: its examples' losses compare with all others.
        """
        return math.log((self.together - 1) / (count - 1))


def projector(width: int, size: int) -> nn.Module:
    """The usual head: a hidden layer of the embeddings' width, then `size` outputs."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size))


def unit_views(head: nn.Module, h_2BD: Tensor) -> Tensor:
    """[2, B, P] unit vectors of both views."""
    return normalize(head(h_2BD.flatten(0, 1)), dim=-1).unflatten(0, h_2BD.shape[:2])


def against(partner: Tensor, negatives: Tensor) -> Tensor:
    """-log(exp(partner) / (exp(partner) + exp(negatives))), in nats."""
    return torch.logaddexp(partner, negatives) - partner
