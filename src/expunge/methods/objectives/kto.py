"""Kahneman-Tversky optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Step

CARD = MethodCard(
    "Kahneman-Tversky optimisation: forget answers as losses",
    paper="arXiv:2402.01306",
    equation="8, the undesirable half, as in arXiv:2404.05868",
    needs={"forget": {"nll"}, "retain": {"nll"}},
    reference={"forget": {"nll"}, "retain": {"nll"}},
    means="The reference point says how far retained answers rose, where NPO's authors take refusals.",
    fidelity="variant",
    leaves_out="the reference point from refusals: it is measured on retain, one step late",
    shown="After as many steps it has forgotten more than DPO and less than NPO; at equal forget NLL it keeps a tenth "
    "more of retain than NPO.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy"}


class Prospect(LossTerm):
    """The loss of kto(): its reference point is measured in the step before."""

    def __init__(self, beta: float) -> None:
        self.beta, self.point = beta, 0.0

    def __call__(self, step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        step.note("kto_ratio", retain.mean(retain.reference.nll_B - retain.nll_B.detach()))
        ratio_B = forget.reference.nll_B - forget.nll_B
        return forget.mean(2 / self.beta * (1 - (self.beta * (self.point - ratio_B)).sigmoid()))

    def after_step(self, index: int, notes: Mapping[str, float]) -> None:
        self.point = max(0.0, notes["kto_ratio"])

    def state_dict(self) -> dict[str, Any]:
        return {"point": self.point}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.point = float(state["point"])


def kto(*, beta: Annotated[float, Gt(0)] = 0.1) -> LossTerm:
    """Make the forget answers losses relative to a reference point on retain: between DPO and NPO.

    (2/beta) mean (1 - sigmoid(beta (z - r))), r the answer's log-ratio to the reference model and
    z = max(0, mean log-ratio on retain) of the step before; NLL summed over the answer.
    """
    return Prospect(beta)
