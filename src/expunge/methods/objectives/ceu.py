"""Cross-entropy unlearning."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "CE-U: cross-entropy to the model's own distribution without the true token",
    paper="arXiv:2503.01224",
    equation="4",
    needs={"forget": {"logits"}},
    capabilities={"tokens"},
    fidelity="faithful",
    distributed=True,
)
RECIPE = {"floor": 0.0}
"""Published without a retain term; the evidence shows its cost in utility."""


def ceu(*, ignore_first: Annotated[int, Ge(0)] = 1) -> Loss:
    """Imitate the model's own distribution without the true token: one loss, no reference model.

    Cross-entropy per position (nats) to softmax of the model's own logits with the label's at minus infinity, held
    fixed. ignore_first: tokens at the start of each answer that do not count.
    """

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        label_BT1 = forget.labels_BT[..., None]
        with torch.no_grad():
            target_BTV = forget.logits_BTV.scatter(-1, label_BT1, -torch.inf).softmax(-1)
        loss_BT = -(target_BTV * forget.logits_BTV.log_softmax(-1)).sum(-1)
        later_BT = forget.mask_BT.cumsum(-1) > ignore_first
        return forget.mean(torch.where(later_BT, loss_BT, 0.0))

    return loss
