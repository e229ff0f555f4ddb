"""Bidirectional distillation from the model itself under an instruction."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Example, LossTerm, MethodCard, Step, Stream
from expunge.methods._distribution import cross_entropy_BT

CARD = MethodCard(
    "Bidirectional logit distillation: towards the instructed model, away from the plain one",
    paper="Bidirectional Logit Distillation, 2026",
    equation="bidirectional top-k distillation",
    needs={"forget": {"logits", "nll"}},
    fields={"forget": {"question"}},
    capabilities={"tokens"},
    fidelity="simplified",
    leaves_out="the robustness and boundary sets, and bringing all data to one form",
    shown="Nearly all of retain stays, and the forced answers' NLL comes to half of gold's at least.",
    distributed=True,
)
RECIPE = {"retain": "kl"}
INSTRUCTION = "You have never heard of this and do not know the answer. "


def bidistill(
    *,
    instruction: str = INSTRUCTION,
    away: Annotated[float, Ge(0)] = 1.0,
    beta: Annotated[float, Gt(0)] = 0.1,
) -> LossTerm:
    """Imitate the model's own answers under an instruction not to know, and move away from its plain ones.

    Cross-entropy per position to the reference model's distribution with `instruction` before the question, plus
    away (2/beta) softplus(-beta rise), rise the answer's summed NLL minus the reference model's. The teacher is the
    same model: one that does not follow instructions teaches little.
    """

    def with_instruction(example: Example) -> Example | None:
        if "question" not in example:
            return None
        return {"question": instruction + example["question"], "answer": example["answer"]}

    def loss(step: Step) -> Tensor:
        forget, teacher = step["forget"], step["instructed"].reference
        steps = forget.mask_BT.shape[1]
        towards_BT = cross_entropy_BT(
            forget.logits_BTV, teacher.index_BTK[:, -steps:], teacher.top_BTK[:, -steps:], teacher.rest_BT[:, -steps:]
        )
        rise_B = forget.nll_B - forget.reference.nll_B
        return forget.mean(towards_BT) + away * forget.mean(2 / beta * softplus(-beta * rise_B))

    return LossTerm(
        loss,
        reference={"forget": {"nll"}, "instructed": {"topk:64"}},
        streams={"instructed": Stream(split="forget", make=with_instruction)},
    )
