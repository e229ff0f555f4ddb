"""Direct preference optimisation with a refusal as the winner."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import LossTerm, MethodCard, Step, Stream
from expunge.methods.objectives._refusals import refusal_maker

CARD = MethodCard(
    "Direct preference optimisation: a refusal over the true answer",
    paper="arXiv:2305.18290",
    equation="7",
    needs={"forget": {"nll"}, "preferred": {"nll"}},
    reference={"forget": {"nll"}, "preferred": {"nll"}},
    streams={"preferred": Stream(split="forget", make=refusal_maker(None))},
    fields={"forget": {"question"}},
    capabilities={"generate"},
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


def dpo(*, beta: Annotated[float, Gt(0)] = 0.1, answers: str | None = None) -> LossTerm:
    """Prefer "I don't know" to the true answer, measured from the origin.

    -(2/beta) log sigmoid(beta ((nll_lose - origin) - (nll_win - origin))), nll summed over the
    answer, beta in 1/nats.
    """

    def loss(step: Step) -> Tensor:
        lose, win = step["forget"], step["preferred"]
        gap_B = (lose.nll_B - lose.reference.nll_B) - (win.nll_B - win.reference.nll_B)
        return lose.mean(2 / beta * softplus(-beta * gap_B))

    return LossTerm(loss, streams={"preferred": Stream(split="forget", make=refusal_maker(answers))})
