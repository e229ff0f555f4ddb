"""The coordinate-wise median of the clients' models."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.core.card import Card
from expunge.methods._strategy import Strategy
from expunge.training.updates import combine

CARD = Card(
    "Coordinate-wise median",
    paper="arXiv:1803.01498",
    equation="algorithm 1, option I",
    means="Holds as long as fewer than half of the clients send what they like; sizes of clients do not count.",
)


def median() -> Strategy:
    """Take the median of each weight over the clients, of an even number the mean of the middle two."""

    def rule(values: Tensor) -> Tensor:
        ordered, count = values.sort(0).values, len(values)
        return torch.lerp(ordered[(count - 1) // 2], ordered[count // 2], 0.5)

    return Strategy(lambda before, updates: combine(before, updates, rule))
