"""A contrast whose targets are as soft as the embeddings are alike."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from expunge.core.card import Card
from expunge.models.pretext import Pretext, ascend_alone
from expunge.models.pretexts._contrast import projector

CARD = Card(
    "Soft contrastive learning",
    paper="arXiv:2211.11262",
    equation="2 to 4",
    means="How far the likeness of pairs after the head is from what the embeddings below it ask for: views of one "
    "example are asked to be more alike than their embeddings are, others as alike as theirs.",
)


class SoftContrastive(Pretext):
    """The loss of soft_contrastive()."""

    def __init__(self, sharpening: float, freedom: float, together: int, size: int) -> None:
        self.sharpening, self.freedom, self.together, self.size = sharpening, freedom, together, size

    def head(self, width: int) -> nn.Module:
        return projector(width, self.size)

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        z_2BP = head(h_2BD.flatten(0, 1)).unflatten(0, h_2BD.shape[:2])
        target_BB = self._targets(h_2BD.detach())
        return ascend_alone(self._shares(z_2BP, z_2BP, target_BB), self._shares(z_2BP, z_2BP.detach(), target_BB))

    def _targets(self, h_2BD: Tensor) -> Tensor:
        """[B, B] how alike first and second views are to be."""
        kernel_BB = self._kernel(h_2BD[0], h_2BD[1])
        same_BB = torch.eye(len(kernel_BB), device=h_2BD.device, dtype=torch.bool)
        return torch.where(same_BB, (math.exp(self.sharpening) * kernel_BB).clamp(max=1), kernel_BB)

    def _shares(self, z_2BP: Tensor, others_2BP: Tensor, target_BB: Tensor) -> Tensor:
        """[B] mean binary cross-entropy of an example's pairs: its own, and each view with the others' opposite."""
        same_BB = torch.eye(len(target_BB), device=z_2BP.device, dtype=torch.bool)
        own_B = self._entropy(self._kernel(z_2BP[0], z_2BP[1]).diagonal(), target_BB.diagonal())
        first_BB = self._entropy(self._kernel(z_2BP[0], others_2BP[1]), target_BB).masked_fill(same_BB, 0.0)
        second_BB = self._entropy(self._kernel(z_2BP[1], others_2BP[0]), target_BB.T).masked_fill(same_BB, 0.0)
        return own_B + (first_BB + second_BB).sum(-1) / (2 * max(1, len(target_BB) - 1))

    def _kernel(self, x_BP: Tensor, y_BP: Tensor) -> Tensor:
        """[B, B] likeness 0-1 by Student's t: 1 at a distance of 0, relative to its dimensions."""
        distance_BB = (x_BP[:, None] - y_BP[None]).square().mean(-1)
        return (1 + distance_BB / self.freedom) ** (-(self.freedom + 1) / 2)

    def _entropy(self, alike: Tensor, target: Tensor) -> Tensor:
        alike = alike.clamp(1e-6, 1 - 1e-6)
        return -(target * alike.log() + (1 - target) * (1 - alike).log())


def soft_contrastive(
    *,
    sharpening: Annotated[float, Ge(0)] = 0.5,
    freedom: Annotated[float, Gt(0)] = 1.0,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """Ask pairs for the likeness that their embeddings have, and two views of one example for more.

    Binary cross-entropy (nats) between q, the likeness of a pair after the head, and its target p: the likeness of the
    embeddings, times e^sharpening (1 at most) for views of one example; p gets no gradient. Likeness is a Student-t
    kernel of `freedom` degrees, (1 + d/freedom)^(-(freedom + 1)/2), d the mean squared difference. An example's loss is
    that of its own pair plus the mean over its pairs with others.
    """
    return SoftContrastive(sharpening, freedom, together, size)
