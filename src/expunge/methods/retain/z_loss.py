"""The Z-loss: where the label stands among the logits, whatever their shift and scale."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Z-loss on retain",
    paper="arXiv:1604.08859",
    equation="7",
    needs={"retain": {"logits"}},
    fidelity="faithful",
    means="Keeps the ranks of answers, not how sure the model is: no confidence is learned beyond that.",
    shown="Fine-tuned on rows of which three in ten have wrong labels, test accuracy ends a little higher; most "
    "wrong labels are learned still.",
    distributed=True,
)


def z_loss(*, sharpness: Annotated[float, Gt(0)] = 1.0, top: Annotated[float, Gt(0)] | None = None) -> Loss:
    """Go on training on retain by the label's standardised logit alone.

    softplus(sharpness (top - z)) / sharpness per position, z the label's logit minus the mean of all, over their
    standard deviation; top: by default sqrt(C - 1), the largest z among C logits.
    """

    def loss(step: Step) -> Tensor:
        retain = step["retain"]
        logits_BTV = retain.logits_BTV
        label_BT = logits_BTV.gather(-1, retain.labels_BT[..., None])[..., 0]
        mean_BT1 = logits_BTV.mean(-1, keepdim=True)
        deviation_BT = (logits_BTV - mean_BT1).square().mean(-1).clamp(min=1e-12).sqrt()
        z_BT = (label_BT - mean_BT1[..., 0]) / deviation_BT
        aim = math.sqrt(logits_BTV.shape[-1] - 1) if top is None else top
        return retain.mean(softplus(sharpness * (aim - z_BT)) / sharpness)

    return loss
