"""Cross-entropy on retain through the first features alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard
from expunge.methods._features import FeatureTerm

CARD = MethodCard(
    "Compressed features by nested dropout on retain",
    paper="arXiv:2206.13140",
    equation="2",
    needs={"retain": {"nll", "hidden"}},
    capabilities={"labels"},
    fidelity="simplified",
    leaves_out="the second network of co-teaching, which selects rows of small loss; and the choice of a length at "
    "the end: all features are used",
    means="The first features learn what most rows share; what one wrong label alone asks for finds no room there.",
    shown="Fine-tuned on rows of which three in ten have wrong labels, test accuracy ends a little higher; most "
    "wrong labels are learned still.",
)


class NestedDropout(FeatureTerm):
    """The loss of nested_dropout()."""

    def __init__(self, spread: float, samples: int) -> None:
        super().__init__("nested_dropout", samples)
        self.spread = spread

    def reshape(self, feature_BD: Tensor, draws_of: Callable[[int], Tensor]) -> Tensor:
        width = feature_BD.shape[-1]
        place_D = torch.arange(1, width + 1, device=feature_BD.device, dtype=torch.float32)
        chance_D = (-((place_D / (self.spread * width)) ** 2) / 2).softmax(-1)
        # The number of features that stay: the draw's place in the cumulative chances.
        count_B1 = (draws_of(1) > chance_D.cumsum(-1)).sum(-1, keepdim=True) + 1
        return feature_BD * (place_D <= count_B1)


def nested_dropout(*, spread: Annotated[float, Gt(0)] = 0.5, samples: Annotated[int, Ge(1), Le(256)] = 1) -> LossTerm:
    """Go on training on retain with the head reading a random number of the first features.

    Cross-entropy (nats) with all features from the k-th on at 0, the chance of k of D proportional to
    exp(-(k / (spread D))^2 / 2); drawn for each example and step.
    """
    return NestedDropout(spread, samples)
