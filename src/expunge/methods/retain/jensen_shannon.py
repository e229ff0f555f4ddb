"""Jensen-Shannon divergence from the reference model on retain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._distribution import both_BTK

CARD = MethodCard(
    "Jensen-Shannon distillation on retain (SSLD)",
    paper="arXiv:2103.05959",
    equation="3",
    needs={"retain": {"logits"}},
    reference={"retain": {"topk:64"}},
    fidelity="simplified",
    leaves_out="the larger teacher and the choice of unlabelled data: the teacher is the reference model",
    means="Reads no label of retain: pictures without one serve as well. Bounded by log 2, so that no row pulls "
    "without end.",
    shown="It holds test accuracy against as many steps of ascent with no true label of retain; at equal "
    "forgetting no more than cross-entropy does.",
    distributed=True,
)


def jensen_shannon() -> Loss:
    """Keep the retain examples' distributions by a divergence that is symmetric and bounded, without labels.

    JS(reference, model) per position (nats, 0 to log 2) over the label, the 64 likeliest others and the rest.
    """

    def loss(step: Step) -> Tensor:
        retain = step["retain"]
        now_BTK, then_BTK = both_BTK(retain.logits_BTV, retain.reference)
        middle_BTK = torch.logaddexp(now_BTK, then_BTK) - math.log(2)
        halves = [(logp_BTK.exp() * (logp_BTK - middle_BTK)).sum(-1) for logp_BTK in (now_BTK, then_BTK)]
        return retain.mean((halves[0] + halves[1]) / 2)

    return loss
