"""Negative preference optimisation."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._targets import Calibrated, Target

CARD = MethodCard(
    "Negative preference optimisation",
    paper="arXiv:2404.05868",
    equation="3",
    needs={"forget": {"nll"}},
    reference={"forget": {"nll"}},
    fidelity="faithful",
    shown="Stopped by the holdout it ends within a fifth of gold's forget NLL and keeps nine tenths of the retain "
    "probability; without a retain term fifty steps take it less than half as far as ascent. Without a stop, "
    "`target: calibrated` brings its membership AUCs nearer to gold's.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy"}


def npo(*, beta: Annotated[float, Gt(0)] = 0.1, length_normalised: bool = False, target: Target = "none") -> Loss:
    """Push the answer's likelihood below the reference model's, with a gradient that fades once it is.

    (2/beta) softplus(beta (nll_ref - nll)), mean over the batch; nll is summed over the answer (averaged over its
    positions if length_normalised), beta in 1/nats. target: `calibrated` leaves out examples at the NLL of unseen ones.
    """

    def each(step: Step) -> Tensor:
        forget = step["forget"]
        rise_B = forget.nll_B - forget.reference.nll_B
        if length_normalised:
            rise_B = rise_B / forget.n_B
        return 2 / beta * softplus(-beta * rise_B)

    if target == "calibrated":
        return Calibrated(lambda step, below_B: step["forget"].mean(each(step) * below_B))
    return lambda step: step["forget"].mean(each(step))
