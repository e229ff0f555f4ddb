"""A mask by magnitude: a baseline of masks that choose by gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.methods._masks import make_trainable, mask_largest

CARD = MethodCard(
    "Magnitude mask",
    paper="baseline",
    equation="absolute values of the weights",
    means="What a mask of this share does that knows the weights and no data: others are worth their work beyond it.",
    fidelity="faithful",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "magnitude"}


def magnitude(*, density: Annotated[float, Gt(0), Le(1)] = 0.5) -> Weights:
    """Train only the largest weights; all others stay as they are, bit for bit.

    density: share of entries that are trainable, over all tensors together.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        sizes = {name: p.detach().abs() for name, p in parameters.items()}
        return Trainable(parameters, mask_largest(sizes, density))

    return choose
