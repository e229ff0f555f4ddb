"""SalUn: the entries to which the forget loss is most sensitive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.methods._masks import make_trainable, mask_largest
from expunge.methods._statistics import gradient

CARD = MethodCard(
    "Gradient-based weight saliency (SalUn)",
    paper="arXiv:2310.12508",
    equation="3",
    needs={"forget": ()},
    fidelity="faithful",
    shown="With random labels on digits it ends nearer to gold than a random mask of its size; nearer than all "
    "weights is not shown.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "salun"}


def salun(*, density: Annotated[float, Gt(0), Le(1)] = 0.5) -> Weights:
    """Train only the weights with the largest forget gradient; all others stay as they are, bit for bit.

    density: share of entries that are trainable, by |gradient of the forget NLL| (the paper's median: .5).
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        slope = gradient(model, splits["forget"])
        return Trainable(parameters, mask_largest({name: value.abs() for name, value in slope.items()}, density))

    return choose
