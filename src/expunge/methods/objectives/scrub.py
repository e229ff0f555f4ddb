"""SCRUB: away from the teacher on forget, near it on retain."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._distribution import kl_BT

CARD = MethodCard(
    "SCRUB: alternating distillation towards and away from the reference model",
    paper="arXiv:2302.09880",
    equation="3 and algorithm 1",
    needs={"forget": {"logits"}, "retain": {"logits", "nll"}},
    reference={"forget": {"topk:64"}, "retain": {"topk:64"}},
)
RECIPE = {"retain": "none", "floor": 0.5}


def scrub(
    *,
    away_epochs: Annotated[int, Ge(0)] = 5,
    near: Annotated[float, Ge(0)] = 0.5,
    fit: Annotated[float, Ge(0)] = 0.5,
) -> Loss:
    """Move away from the reference model on forget and towards it on retain, in alternating steps.

    For away_epochs every second step maximises KL(reference || model) on forget; all other steps minimise
    near KL + fit cross-entropy on retain (nats per position). After that, retain alone. The first step is retain's: at
    the reference model the KL has no slope.
    """

    def loss(step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        if step.epoch < away_epochs and step.index % 2 == 1:
            return -forget.mean(kl_BT(forget.logits_BTV, forget.reference))
        return near * retain.mean(kl_BT(retain.logits_BTV, retain.reference)) + fit * retain.nll

    return loss
