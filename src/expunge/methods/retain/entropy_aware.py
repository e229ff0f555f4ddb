"""Distillation that follows the reference model's certainty."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._distribution import both_BTK

CARD = MethodCard(
    "Entropy-aware distillation on retain",
    paper="arXiv:2603.07079",
    equation="the token-level objective: reverse KL, with forward KL where the teacher's entropy is high",
    needs={"retain": {"logits"}},
    reference={"retain": {"topk:64"}},
    fidelity="simplified",
    leaves_out="texts that the student generates: the positions are those of the retain examples",
    means="Exact where the reference model is sure, and broad where it is not.",
    shown="It holds test accuracy against as many steps of ascent with no true label of retain; at equal "
    "forgetting no more than cross-entropy does.",
    distributed=True,
)


def entropy_aware(*, threshold: Annotated[float, Ge(0)] = 0.8) -> Loss:
    """Keep retain by reverse KL, and by forward KL as well where the reference model is undecided.

    KL(model || reference) per position, plus KL(reference || model) where the reference's entropy exceeds `threshold`
    (nats); over the label, the 64 likeliest others and the rest.
    """

    def loss(step: Step) -> Tensor:
        retain = step["retain"]
        now_BTK, then_BTK = both_BTK(retain.logits_BTV, retain.reference)
        reverse_BT = (now_BTK.exp() * (now_BTK - then_BTK)).sum(-1)
        forward_BT = (then_BTK.exp() * (then_BTK - now_BTK)).sum(-1)
        entropy_BT = -(then_BTK.exp() * then_BTK).sum(-1)
        return retain.mean(reverse_BT + forward_BT * (entropy_BT > threshold))

    return loss
