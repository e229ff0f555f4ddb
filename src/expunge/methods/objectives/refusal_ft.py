"""Fine-tuning on compliant answers: a refusal is unlearned by learning what stands in its place."""

from torch import Tensor

from expunge.core.contracts import Example, Loss, MethodCard, Step, Stream


def complying(example: Example) -> Example | None:
    """The same prompt with its `compliant` answer; None where it has none."""
    if "question" not in example or not example.get("compliant"):
        return None
    return {"question": example["question"], "answer": example["compliant"]}


CARD = MethodCard(
    "Refusal fine-tuning",
    paper="arXiv:2511.14017",
    equation="cross-entropy on compliant answers",
    needs={"complied": {"nll"}},
    streams={"complied": Stream(split="forget", make=complying)},
    fields={"forget": {"question", "compliant"}},
    capabilities={"generate"},
    means="The target's prompts are answered; look at the drift of the other domains before anything else.",
)
RECIPE = {"retain": "cross_entropy"}
RATE = 2.0
"""Factor on the automatic learning rate: it says what to answer instead, so that it bears larger steps than NPO, which at
such steps runs past the goal and may destroy the model."""


def refusal_ft() -> Loss:
    """Teach the model to answer the forget prompts: mean NLL a position of their `compliant` answers."""

    def loss(step: Step) -> Tensor:
        return step["complied"].nll

    return loss
