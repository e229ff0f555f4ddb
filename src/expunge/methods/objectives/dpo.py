"""Direct preference optimisation with a refusal as the preferred answer."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import LossTerm, MethodCard, Step, Stream
from expunge.methods._refusals import refusal_maker

CARD = MethodCard(
    "Direct preference optimisation: a refusal over the true answer",
    paper="arXiv:2305.18290",
    equation="7",
    needs={"forget": {"nll"}, "preferred": {"nll"}},
    reference={"forget": {"nll"}, "preferred": {"nll"}},
    streams={"preferred": Stream(split="forget", make=refusal_maker(None))},
    fields={"forget": {"question"}},
    capabilities={"generate"},
    fidelity="faithful",
    shown="Refusals become likelier by a nat, yet no answer becomes one, and the answers stay far likelier than under "
    "gold.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


def dpo(*, beta: Annotated[float, Gt(0)] = 0.1, answers: str | None = None) -> LossTerm:
    """Prefer "I don't know" to the true answer, relative to the reference model.

    -(2/beta) log sigmoid(beta (rise of the true answer's NLL - rise of the refusal's)), each rise over the reference
    model; NLL summed over the answer, beta in 1/nats. answers: a file of refusals, one per line.
    """

    def loss(step: Step) -> Tensor:
        forget, preferred = step["forget"], step["preferred"]
        rise_B = forget.nll_B - forget.reference.nll_B
        gap_B = rise_B - (preferred.nll_B - preferred.reference.nll_B)
        return forget.mean(2 / beta * softplus(-beta * gap_B))

    return LossTerm(loss, streams={"preferred": Stream(split="forget", make=refusal_maker(answers))})
