"""Simple NPO: reference-free and length-normalised."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Simple negative preference optimisation",
    paper="arXiv:2410.07163",
    equation="4",
    needs={"forget": {"nll"}},
    fidelity="faithful",
    shown="At equal forget NLL short answers are forgotten further than long ones, but by two thirds of NPO's ratio "
    "at most; closer to gold on forget quality is not shown.",
)
RECIPE = {"retain": "cross_entropy", "beta": 4.5, "forget_weight": 0.125}


def simnpo(*, beta: Annotated[float, Gt(0)] = 2.5, margin: float = 0.0) -> Loss:
    """Raise the mean NLL of the answer without a reference model: no bias towards short answers.

    -(2/beta) log sigmoid(beta nll/n - margin), mean over the batch; beta in 1/nats, margin inside the sigmoid and not
    multiplied by beta.
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        return forget.mean(2 / beta * softplus(margin - beta * forget.nll_B / forget.n_B))

    return loss
