"""Gradient ascent."""

from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Gradient ascent on the forget set",
    paper="arXiv:1912.03817",
    equation="minus the training loss",
    needs={"forget": {"nll"}},
    fidelity="faithful",
    shown="When it reaches the forget NLL of a retrained model, half of the retain probability is gone.",
)
RECIPE = {"floor": 0.0}
"""No retain term and no floor: the baseline that destroys utility, as published."""


def ga() -> Loss:
    """Maximise the answer's NLL: forgets fast and destroys everything else.

    Minus the mean NLL per position (nats).
    """

    def loss(step: Step) -> Tensor:
        return -step["forget"].nll

    return loss
