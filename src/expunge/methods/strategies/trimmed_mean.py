"""The coordinate-wise mean without the extremes."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor

from expunge.core.card import Card
from expunge.methods._strategy import Strategy
from expunge.training.updates import combine

CARD = Card(
    "Coordinate-wise trimmed mean",
    paper="arXiv:1803.01498",
    equation="algorithm 1, option II",
    means="Holds as long as at most the trimmed share of the clients sends what it likes; sizes do not count.",
)


def trimmed_mean(*, trim: Annotated[float, Ge(0), Lt(0.5)] = 0.2) -> Strategy:
    """Average each weight over the clients without the share `trim` of its smallest and of its largest values."""

    def rule(values: Tensor) -> Tensor:
        cut = math.floor(trim * len(values))
        return values.sort(0).values[cut : len(values) - cut].mean(0)

    return Strategy(lambda before, updates: combine(before, updates, rule))
