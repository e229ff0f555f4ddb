"""Saturation and importance weights."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "SatImp: ascent weighted by saturation and importance",
    paper="arXiv:2505.11953",
    equation="section 5, SatImp",
    needs={"forget": {"logp"}},
    fidelity="faithful",
    shown="At a forget NLL of 1 it keeps more of retain than plain ascent on each of three seeds, .03 more on "
    "average; both destroy it.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "forget_weight": 1.0, "alpha": 0.1}


def satimp(*, beta1: Annotated[float, Ge(0)] = 5.0, beta2: Annotated[float, Ge(0)] = 1.0) -> Loss:
    """Ascend most on tokens that are still known, but not on those that grammar makes certain.

    -mean over positions of p^beta1 (1 - p)^beta2 (-log p), the weights held fixed in the gradient.
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        p_BT = forget.logp_BT.detach().exp()
        weight_BT = p_BT**beta1 * (1 - p_BT).clamp(min=0) ** beta2
        return forget.mean(weight_BT * forget.logp_BT)

    return loss
