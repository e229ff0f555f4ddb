"""The reference model's answers, in a space of classes that is shrunk until it is sure."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._distribution import both_BTK

CARD = MethodCard(
    "Shrunk class space on retain",
    paper="arXiv:2308.06777",
    equation="5 and 6",
    needs={"retain": {"logits"}},
    reference={"retain": {"topk:64"}},
    fidelity="variant",
    leaves_out="weak and strong views: the teacher is the reference model on the same input",
    means="Reads no label of retain. Uncertain rows are kept too, up to the classes that they are confused with.",
    shown="It holds test accuracy against as many steps of ascent with no true label of retain; at equal "
    "forgetting no more than cross-entropy does.",
    distributed=True,
)


def shrunk_classes(*, sure: Annotated[float, Gt(0), Lt(1)] = 0.95) -> Loss:
    """Keep the reference model's likeliest answer, without the rivals that make it unsure.

    Cross-entropy (nats) to the reference's first choice, of the model's distribution without the fewest next choices
    whose removal lets the reference's own probability of the first reach `sure`.
    """

    def loss(step: Step) -> Tensor:
        retain = step["retain"]
        now_BTK, then_BTK = both_BTK(retain.logits_BTV, retain.reference)
        order_BTK = then_BTK.argsort(dim=-1, descending=True, stable=True)
        then_BTK, now_BTK = then_BTK.gather(-1, order_BTK), now_BTK.gather(-1, order_BTK)
        p_BTK = then_BTK.exp()
        # Mass left where all from the second to the k-th are gone.
        left_BTK = p_BTK.sum(-1, keepdim=True) - p_BTK.cumsum(-1) + p_BTK[..., :1]
        unsure_BTK = p_BTK[..., :1] / left_BTK.clamp(min=1e-12) < sure
        # A rival goes where the first was unsure before it went; the first never goes.
        gone_BTK = torch.cat([torch.zeros_like(unsure_BTK[..., :1]), unsure_BTK[..., :-1]], -1)
        return retain.mean(now_BTK.masked_fill(gone_BTK, -torch.inf).logsumexp(-1) - now_BTK[..., 0])

    return loss
