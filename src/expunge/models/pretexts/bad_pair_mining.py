"""NT-Xent that gives up on pairs of views which agree too well or not at all."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from expunge.core.card import Card
from expunge.models.pretext import Pretext
from expunge.models.pretexts.nt_xent import NTXent

CARD = Card(
    "Bad-pair mining",
    paper="arXiv:2302.03357",
    equation="5 to 7, over the losses of the batch in the place of a memory of each pair's earlier epochs",
    means="The loss of NT-Xent, of bad pairs too: the weights are in what is learned, not in the figure.",
)


class BadPairMining(NTXent):
    """The loss of bad_pair_mining()."""

    def __init__(self, deviations: float, temperature: float, together: int, size: int) -> None:
        super().__init__(temperature, together, size)
        self.deviations = deviations

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        loss_B = super().losses(head, h_2BD)
        weight_B = pair_weights(loss_B.detach(), self.deviations)
        return loss_B.detach() + weight_B * (loss_B - loss_B.detach())


def pair_weights(loss_B: Tensor, deviations: float) -> Tensor:
    """[B] 1 within so many deviations of the mean; beyond, the density of a normal distribution, and 1 at most.

    The published code lets a density exceed 1, which weighs bad pairs up where losses are close together.
    """
    mean, deviation = loss_B.mean(), loss_B.std(unbiased=False).clamp(min=1e-12)
    lead_B = (loss_B - mean) / deviation
    density_B = (-(lead_B**2) / 2).exp() / (deviation * math.sqrt(2 * math.pi))
    return density_B.clamp(max=1).masked_fill(lead_B.abs() < deviations, 1.0)


def bad_pair_mining(
    *,
    deviations: Annotated[float, Gt(0)] = 2.0,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """Learn less from pairs of views whose loss lies far from the batch's.

    A pair whose NT-Xent lies `deviations` standard deviations from the batch's mean or more is noise that both views
    share (below) or views that do not show the same (above): its gradient is weighted by the normal density of its
    loss. The loss that is read is the plain one.
    """
    return BadPairMining(deviations, temperature, together, size)
