"""Prune first, then unlearn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.methods._masks import largest, movable

CARD = MethodCard(
    "Prune, then unlearn",
    paper="arXiv:2304.04934",
    equation="section 4, one-shot magnitude pruning",
    means="The gain needs most weights pruned (the paper: 95 %; digits: 80 %), which costs a small model some accuracy; half, "
    "the default, is safe and gains nothing on digits.",
    one_shot=True,
)
RECIPE = {"retain": "cross_entropy", "weights": "sparse", "stop": "none"}


def sparse(*, sparsity: Annotated[float, Ge(0), Lt(1)] = 0.5) -> Weights:
    """Set the smallest weights to zero, then let only the others move: what is sparse forgets more easily.

    sparsity: share of all matrix entries that one-shot magnitude pruning (OMP) takes; vectors stay.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = movable(model)
        masks = {}
        if matrices := {name: p.detach().abs() for name, p in parameters.items() if p.dim() > 1}:
            masks = largest(matrices, 1 - sparsity)
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name].mul_(mask)
        return Trainable(parameters, masks)

    return choose
