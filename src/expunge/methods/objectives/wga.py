"""Weighted gradient ascent."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Weighted gradient ascent",
    paper="arXiv:2502.19301",
    equation="section 5, WGA",
    needs={"forget": {"logp"}},
    fidelity="faithful",
    shown="At a forget NLL of 1 it keeps more of retain than plain ascent on each of three seeds, .03 more on "
    "average; both destroy it.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy"}


def wga(*, beta: Annotated[float, Ge(0)] = 1.0) -> Loss:
    """Ascend on each token in proportion to its own likelihood: forgotten tokens lose their pull.

    -mean over positions of p^beta (-log p), the weight p^beta held fixed in the gradient.
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        weight_BT = (beta * forget.logp_BT.detach()).exp()
        return forget.mean(weight_BT * forget.logp_BT)

    return loss
