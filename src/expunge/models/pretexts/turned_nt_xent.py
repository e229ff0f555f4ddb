"""NT-Xent, and how far a picture was turned."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from expunge.core.card import Card
from expunge.models.pretext import Pretext, Seen
from expunge.models.pretexts._contrast import projector
from expunge.models.pretexts.nt_xent import NTXent

CARD = Card(
    "NT-Xent with a pretext regulariser (ScatSimCLR)",
    paper="arXiv:2108.13939",
    equation="the loss with the rotation task; without the scattering transform, which is a network's business",
    means="NT-Xent plus how surely a quarter turn of the example's first view is told: log 4 by chance.",
)
TURNS = 4


class Turned(nn.Module):
    """The projection of NT-Xent, and the layer that tells the turns."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.projection = projector(width, size)
        self.turns = nn.Linear(width, TURNS)

    def forward(self, h_RD: Tensor) -> Tensor:
        """[R, size] projections."""
        projected: Tensor = self.projection(h_RD)
        return projected


class TurnedNTXent(NTXent):
    """The loss of turned_nt_xent()."""

    def __init__(self, weight: float, temperature: float, together: int, size: int) -> None:
        super().__init__(temperature, together, size)
        self.weight = weight

    def head(self, width: int) -> nn.Module:
        return Turned(width, self.size)

    def losses_of(self, head: nn.Module, h_2BD: Tensor, seen: Seen) -> Tensor:
        assert isinstance(head, Turned)
        x_BCHW = seen.views_2BCHW[0]
        square = x_BCHW.shape[-1] == x_BCHW.shape[-2]
        turns = torch.arange(0, TURNS, 1 if square else 2, device=x_BCHW.device)
        turned = torch.cat([torch.rot90(x_BCHW, int(turn), (-2, -1)) for turn in turns])
        truth_R = turns.repeat_interleave(len(x_BCHW))
        told_R = cross_entropy(head.turns(seen.embed(turned)), truth_R, reduction="none")
        return self.losses(head, h_2BD) + self.weight * told_R.unflatten(0, (len(turns), -1)).mean(0)


def turned_nt_xent(
    *,
    weight: Annotated[float, Ge(0)] = 0.2,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """NT-Xent plus weight times the cross-entropy of telling by how many quarter turns a view was turned.

    For small sets, where the contrast alone overfits. Pictures that are not square are turned by half alone. It costs
    two further passes of all views.
    """
    return TurnedNTXent(weight, temperature, together, size)
