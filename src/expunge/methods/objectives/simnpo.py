"""Simple NPO: reference-free and length-normalised."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._targets import Calibrated, Target

CARD = MethodCard(
    "Simple negative preference optimisation",
    paper="arXiv:2410.07163",
    equation="4",
    needs={"forget": {"nll"}},
    fidelity="faithful",
    shown="At equal forget NLL short answers are forgotten further than long ones, but by two thirds of NPO's ratio "
    "at most; closer to gold on forget quality is not shown. Without a stop `target: calibrated` brings its membership "
    "AUCs nearer to gold's with `beta: 0.5, forget_weight: 1` (.48 to .55 off without targets, .24 to .43 with them).",
    means="With its own beta and weight it slows down long before the NLL of unseen examples, the membership AUCs "
    ".4 off gold's: targets then change nothing.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "beta": 4.5, "forget_weight": 0.125}


def simnpo(*, beta: Annotated[float, Gt(0)] = 2.5, margin: float = 0.0, target: Target = "none") -> Loss:
    """Raise the mean NLL of the answer without a reference model: no bias towards short answers.

    -(2/beta) log sigmoid(beta nll/n - margin), mean over the batch; beta in 1/nats, margin inside the sigmoid and not
    multiplied by beta. target: `calibrated` leaves out examples at the NLL of unseen ones.
    """

    def each(step: Step) -> Tensor:
        forget = step["forget"]
        return 2 / beta * softplus(margin - beta * forget.nll_B / forget.n_B)

    if target == "calibrated":
        return Calibrated(lambda step, below_B: step["forget"].mean(each(step) * below_B))
    return lambda step: step["forget"].mean(each(step))
