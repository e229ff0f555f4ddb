"""Fine-tuning on "I don't know"."""

from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Step, Stream
from expunge.methods._refusals import refusal_maker

CARD = MethodCard(
    "Cross-entropy on refusals",
    paper="arXiv:2401.06121",
    equation="section 3.2, preference optimisation baseline (IDK)",
    needs={"refused": {"nll"}},
    streams={"refused": Stream(split="forget", make=refusal_maker(None))},
    fields={"forget": {"question"}},
    capabilities={"generate"},
    means="Answers become refusals; under teacher forcing the true answer stays far likelier than to gold.",
    fidelity="faithful",
    shown="Four fifths of the forget answers become refusals, and the true answers stay far likelier than under gold.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


def idk(*, answers: str | None = None) -> LossTerm:
    """Teach the model to answer that it does not know: hides more than it removes.

    Mean NLL per position of a refusal (from `answers`, a text file, or the built-in list).
    """

    def loss(step: Step) -> Tensor:
        return step["refused"].nll

    return LossTerm(loss, streams={"refused": Stream(split="forget", make=refusal_maker(answers))})
