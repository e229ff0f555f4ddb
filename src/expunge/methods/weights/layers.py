"""A span of layers."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Gt

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.methods._layers import choose_layer

CARD = MethodCard(
    "Chosen layers",
    paper="arXiv:2403.03218",
    equation="section 4, updated parameters",
    fidelity="faithful",
    shown="At equal forget NLL it keeps as much of retain as all weights, within five points.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "layers"}


def layers(
    *, layer: int | None = None, span: Annotated[int, Gt(0)] = 3, part: Literal["down", "block"] = "block"
) -> Weights:
    """Train only the `span` layers up to and including `layer`; nothing else gets a gradient.

    part: "block" trains the whole layer; "down" its MLP down-projection alone, as RMU was published.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        last = choose_layer(model, layer)
        indices = range(max(0, last - span + 1), last + 1)
        paths = [model.down(i) if part == "down" else model.blocks[i] for i in indices]
        trainable = {}
        for name, parameter in model.module.named_parameters():
            moves = any(name.startswith(f"{path}.") for path in paths)
            parameter.requires_grad_(moves)
            if moves:
                parameter.data = parameter.data.float()
                trainable[name] = parameter
        return Trainable(trainable)

    return choose
