"""The plain gradient of the summed losses."""

from collections.abc import Sequence

from torch import nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods.updates._backward import backward

CARD = MethodCard(
    "Gradient of the sum",
    paper="baseline",
    equation="backward pass",
    fidelity="faithful",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "plain"}


def plain() -> Update:
    """Descend the gradient of the sum of the weighted losses."""

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        backward(losses)
        losses.reduce_gradients(parameters)

    return Update(update)
