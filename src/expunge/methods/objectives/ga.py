"""Gradient ascent."""

from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._targets import Calibrated, Target

CARD = MethodCard(
    "Gradient ascent on the forget set",
    paper="arXiv:1912.03817",
    equation="minus the training loss",
    needs={"forget": {"nll"}},
    fidelity="faithful",
    means="Nothing holds the rest, and other classes or answers go with those that were to: a retain term or a floor "
    "would hold them. Of a class it ends further from gold than fine-tuning.",
    shown="When it reaches the forget NLL of a retrained model, half of the retain probability is gone. Without a stop "
    "`target: calibrated` brings its membership AUCs nearer to gold's on two small worlds, and ascent alone leaves no "
    "held-out knowledge either way: the forget NLL runs on to three times gold's and further.",
    distributed=True,
)
RECIPE = {"floor": 0.0}
"""No retain term and no floor: the baseline that destroys utility, as published."""


def ga(*, target: Target = "none") -> Loss:
    """Maximise the answer's NLL: forgets fast and destroys everything else.

    Minus the mean NLL per position (nats). target: `calibrated` leaves out examples at the NLL of unseen ones.
    """

    def loss(step: Step) -> Tensor:
        return -step["forget"].nll

    def below_target(step: Step, below_B: Tensor) -> Tensor:
        forget = step["forget"]
        return -(forget.nll_B * below_B).sum() / max(1, forget.positions or int(forget.n_B.sum()))

    return Calibrated(below_target) if target == "calibrated" else loss
