"""Unlearning by self-distillation on adjusted logits."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._distribution import cross_entropy_BT, lower_label

CARD = MethodCard(
    "UnDIAL: self-distillation with the true token's logit lowered",
    paper="arXiv:2402.10052",
    equation="section 3.2",
    needs={"forget": {"logits"}},
    reference={"forget": {"topk:64"}},
    capabilities={"tokens"},
    fidelity="faithful",
    shown="In three hundred steps without a retain term it does not collapse as ascent and NPO do.",
    distributed=True,
)
RECIPE = {"beta": 10.0, "retain": "cross_entropy"}


def undial(*, beta: Annotated[float, Gt(0)] = 10.0) -> Loss:
    """Imitate the reference model with the true token made less likely: bounded, so it does not collapse.

    Cross-entropy per position to softmax(the reference's logits - beta at the label); beta in nats (3 to 10).
    Published with and without a retain term; small models lose too much without one.
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        top_BTK, rest_BT = lower_label(forget.reference, beta)
        return forget.mean(cross_entropy_BT(forget.logits_BTV, forget.reference.index_BTK, top_BTK, rest_BT))

    return loss
