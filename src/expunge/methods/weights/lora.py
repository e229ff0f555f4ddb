"""Low-rank adapters."""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.core.random import seed_libraries
from expunge.models.adapters import insert
from expunge.models.weights import fold

CARD = MethodCard(
    "Low-rank adaptation",
    paper="arXiv:2106.09685",
    equation="3",
    fidelity="faithful",
    shown="At equal forget NLL it keeps as much of retain as all weights, within five points.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "lora"}
RATE = 5.0
"""Factor on the share of the automatic learning rate: LoRA takes larger steps than full weights."""


def lora(
    *,
    rank: Annotated[int, Gt(0)] = 16,
    lora_alpha: Annotated[int, Gt(0)] = 32,
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    targets: str | list[str] = "all-linear",
) -> Weights:
    """Train low-rank matrices added to the linear layers; the base stays as it is, bit for bit.

    W + (lora_alpha / rank) B A, with A random and B zero at the start. The result is saved as a
    PEFT adapter. On state-space models (Mamba) `all-linear` leaves out the output projections, which PEFT forbids.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        fold(model.module)
        seed_libraries(context.seed, context.stage, "lora")
        names = insert(model.module, rank=rank, alpha=lora_alpha, dropout=dropout, targets=targets)
        parameters = dict(model.module.named_parameters())
        return Trainable({name: parameters[name] for name in names})

    return choose
