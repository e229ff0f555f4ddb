"""Every weight trainable."""

from collections.abc import Mapping
from typing import Any

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights

CARD = MethodCard(
    "All weights",
    paper="baseline",
    equation="full fine-tuning",
    fidelity="faithful",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "all"}


def all() -> Weights:
    """Train every parameter, in float32."""

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        trainable = {}
        for name, parameter in model.module.named_parameters():
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
            trainable[name] = parameter
        return Trainable(trainable)

    return choose
