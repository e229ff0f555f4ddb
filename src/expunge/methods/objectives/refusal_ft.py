"""Fine-tuning on compliant answers: unlearns a refusal by learning the answer in its place."""

from torch import Tensor

from expunge.core.contracts import Example, Loss, MethodCard, Step, Stream


def compliant_example(example: Example) -> Example | None:
    """Return the prompt with its `compliant` answer; None where it has none."""
    if "question" not in example or not example.get("compliant"):
        return None
    return {"question": example["question"], "answer": example["compliant"]}


CARD = MethodCard(
    "Refusal fine-tuning",
    paper="arXiv:2511.14017",
    equation="cross-entropy on compliant answers",
    needs={"complied": {"nll"}},
    streams={"complied": Stream(split="forget", make=compliant_example)},
    fields={"forget": {"question", "compliant"}},
    capabilities={"generate"},
    means="The target's prompts are answered; check the drift of the other domains first.",
    fidelity="faithful",
    shown="The target's refusals fall by 50 points; where domains are entangled, others' fall by 30 and more.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy"}
RATE = 2.0
"""Factor on the automatic learning rate: with a target answer it tolerates larger steps than NPO, which at such steps
overshoots and may destroy the model."""


def refusal_ft() -> Loss:
    """Teach the model to answer the forget prompts: mean NLL per position of their `compliant` answers."""

    def loss(step: Step) -> Tensor:
        return step["complied"].nll

    return loss
