"""Barlow Twins: the views' features agree one by one, and are otherwise uncorrelated."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from expunge.core.card import Card
from expunge.models.pretext import Pretext, ascend_alone

CARD = Card(
    "Redundancy reduction between views",
    paper="arXiv:2103.03230",
    equation="1",
    means="An example's share of a batch's loss: it is low where its views agree in every feature. Below 0 its own "
    "views agree better than the batch's average; the mean over a batch is the paper's loss, and never below 0.",
)
EPSILON = 1e-5
"""Added to a feature's variance over the batch."""


class BarlowTwins(Pretext):
    """The loss of barlow_twins()."""

    def __init__(self, redundancy: float, together: int, size: int) -> None:
        self.redundancy, self.together, self.size = redundancy, together, size

    def head(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.size))

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        z_2BP = head(h_2BD.flatten(0, 1)).unflatten(0, h_2BD.shape[:2])
        return ascend_alone(self._shares(z_2BP, z_2BP), self._shares(z_2BP, z_2BP.detach()))

    def _shares(self, z_2BP: Tensor, batch_2BP: Tensor) -> Tensor:
        """[B] each example's share of the loss, under the mean, deviation and correlations of `batch`."""
        mean_21P = batch_2BP.mean(1, keepdim=True)
        deviation_21P = (batch_2BP.var(1, unbiased=False, keepdim=True) + EPSILON).sqrt()
        x_BP, y_BP = (z_2BP - mean_21P) / deviation_21P
        u_BP, v_BP = (batch_2BP - mean_21P) / deviation_21P
        correlation_PP = u_BP.T @ v_BP / len(u_BP)
        weight_PP = torch.full_like(correlation_PP, self.redundancy).fill_diagonal_(1)
        target_PP = torch.eye(self.size, device=z_2BP.device, dtype=z_2BP.dtype)
        pull_PP = weight_PP * (correlation_PP - target_PP)
        # The loss is the sum of pull · (C - target), and C is the mean of the examples' products.
        return ((x_BP @ pull_PP) * y_BP).sum(-1) - (pull_PP * target_PP).sum()


def barlow_twins(
    *,
    redundancy: Annotated[float, Ge(0)] = 5e-3,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(2), Le(65_536)] = 64,
) -> Pretext:
    """Bring the correlations between the features of two views to the identity.

    Sum over i of (1 - C_ii)² + redundancy · sum over i ≠ j of C_ij², C the correlations over a batch between the
    features [size] of first and second views. An example's loss is its share: C is a mean over the examples, so
    that the loss is one too, exactly. In eval mode `together` examples are read together.
    """
    return BarlowTwins(redundancy, together, size)
