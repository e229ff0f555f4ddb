"""A contrast over several heads, with a temperature for each pair."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn.functional import normalize

from expunge.core.card import Card
from expunge.models.pretext import Pretext, ascend_alone
from expunge.models.pretexts._contrast import against, projector

CARD = Card(
    "Adaptive multi-head contrast",
    paper="arXiv:2310.05615",
    equation="the loss of SimCLR with heads and adaptive temperatures, and their penalty",
    means="As NT-Xent over the sum of several likenesses; the penalty on the temperatures is a part of it, so that it "
    "may lie above or below NT-Xent's.",
)
LOWEST, HIGHEST = 0.05, 1.0
"""Between which the temperatures lie."""


class Heads(nn.Module):
    """Several projections, and for each a map whose products set the pairs' temperatures."""

    def __init__(self, width: int, size: int, heads: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(projector(width, size) for _ in range(heads))
        self.scales = nn.ModuleList(nn.Linear(size, size) for _ in range(heads))


class MultiHead(Pretext):
    """The loss of multi_head()."""

    def __init__(self, heads: int, penalty: float, together: int, size: int) -> None:
        self.heads, self.penalty, self.together, self.size = heads, penalty, together, size

    def head(self, width: int) -> nn.Module:
        return Heads(width, self.size, self.heads)

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        assert isinstance(head, Heads)
        z_H2BP = torch.stack([normalize(part(h_2BD), dim=-1) for part in head.projections])
        if z_H2BP.shape[2] == 1:
            return 0 * z_H2BP.sum((0, 1, 3))
        return ascend_alone(self._contrast(head, z_H2BP, z_H2BP), self._contrast(head, z_H2BP, z_H2BP.detach()))

    def _contrast(self, head: Heads, z_H2BP: Tensor, others_H2BP: Tensor) -> Tensor:
        """[B] mean over an example's views of the cross-entropy over the heads' sum, and the penalty on its pairs."""
        count = z_H2BP.shape[2]
        own_BR = torch.eye(count, dtype=torch.bool, device=z_H2BP.device).repeat(1, 2)
        partner_B = 0 * z_H2BP.sum((0, 1, 3))
        penalty_B, negatives_2BR = partner_B, 0 * z_H2BP[0] @ others_H2BP[0].flatten(0, 1).T
        for scale, z_2BP, others_2BP in zip(head.scales, z_H2BP, others_H2BP, strict=True):
            turned_2BP = normalize(scale(z_2BP), dim=-1)
            others_RP = others_2BP.flatten(0, 1)
            heat_2BR = temperatures(turned_2BP @ normalize(scale(others_RP), dim=-1).T)
            heat_B = temperatures((turned_2BP[0] * turned_2BP[1]).sum(-1))
            partner_B = partner_B + (z_2BP[0] * z_2BP[1]).sum(-1) / heat_B / self.heads
            negatives_2BR = negatives_2BR + (z_2BP @ others_RP.T) / heat_2BR / self.heads
            mean_B = (curb(heat_2BR) * ~own_BR).sum((0, 2)) / (2 * (2 * count - 2))
            penalty_B = penalty_B + (curb(heat_B) + mean_B) / (2 * self.heads)
        away_2B = negatives_2BR.masked_fill(own_BR, -torch.inf).logsumexp(-1)
        away_2B = away_2B + math.log((self.together - 1) / (count - 1))
        return against(partner_B, away_2B).mean(0) + self.penalty * penalty_B


def temperatures(product: Tensor) -> Tensor:
    """Temperatures of pairs, by the products of what their views are mapped to."""
    return LOWEST + (HIGHEST - LOWEST) * product.sigmoid()


def curb(heat: Tensor) -> Tensor:
    """log t + 1/t, which has its minimum at 1: what keeps a temperature from falling without end."""
    return heat.log() + 1 / heat


def multi_head(
    *,
    heads: Annotated[int, Ge(1), Le(64)] = 2,
    penalty: Annotated[float, Gt(0)] = 0.1,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """NT-Xent over the mean of several heads' cosines, each over a temperature that follows from the pair.

    A temperature is a sigmoid between .05 and 1 of the cosine of what a layer makes of both views; beside the loss
    stands penalty times the mean of log t + 1/t over an example's pairs. Every head sees other likenesses: what one
    asks to be apart may be alike to another.
    """
    return MultiHead(heads, penalty, together, size)
