"""Prune first, then unlearn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.methods._masks import make_trainable, mask_largest

CARD = MethodCard(
    "Prune, then unlearn",
    paper="arXiv:2304.04934",
    equation="section 4, one-shot magnitude pruning",
    means="The gain needs most weights pruned (the paper: 95 %; digits: 80 %, the default), which costs a small model "
    "some accuracy; half of them gain nothing on digits.",
    one_shot=True,
    fidelity="simplified",
    leaves_out="pruning by SynFlow, and repeated pruning",
    shown="With 80 % pruned, fine-tuning ends at six tenths of the dense model's gap to gold.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "weights": "sparse", "stop": "none"}


def sparse(*, sparsity: Annotated[float, Ge(0), Lt(1)] = 0.8) -> Weights:
    """Set the smallest weights to zero and train only the others: a sparse model forgets more easily.

    sparsity: share of all matrix entries that one-shot magnitude pruning (OMP) removes; vectors stay.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        masks = {}
        if matrices := {name: p.detach().abs() for name, p in parameters.items() if p.dim() > 1}:
            masks = mask_largest(matrices, 1 - sparsity)
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name].mul_(mask)
        return Trainable(parameters, masks)

    return choose
