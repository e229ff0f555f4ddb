"""SCRUB: away from the teacher on forget, near it on retain."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step
from expunge.methods._distribution import tempered_kl_BT

CARD = MethodCard(
    "SCRUB: alternating distillation towards and away from the reference model",
    paper="arXiv:2302.09880",
    equation="3 and algorithm 1",
    needs={"forget": {"logits"}, "retain": {"logits", "nll"}},
    reference={"forget": {"topk:64"}, "retain": {"topk:64"}},
    fidelity="simplified",
    leaves_out="turns by epoch by default, and a whole pass over retain in each of its turns; its rewinding is `stop: "
    "holdout`, by NLL in the place of error",
    shown="At the base's own rate it takes nine tenths of wrong labels learned by heart, at three tenths of the gap "
    "to gold of ascent with a retain term; at the default tenth of that rate next to none.",
    distributed=True,
)
RECIPE = {"retain": "none", "floor": 0.5}


def scrub(
    *,
    away_epochs: Annotated[int, Ge(0)] = 3,
    near: Annotated[float, Ge(0)] = 0.5,
    fit: Annotated[float, Ge(0)] = 0.5,
    temperature: Annotated[float, Gt(0)] = 4.0,
    turns: Literal["epoch", "step"] = "step",
) -> Loss:
    """Move away from the reference model on forget and towards it on retain, in turns.

    Every second turn, away_epochs epochs in all, maximises T^2 KL(reference || model) on forget, both at temperature T;
    all others minimise near T^2 KL + fit cross-entropy on retain (nats per position). The first turn is retain's: at
    the reference model the KL has no slope. turns: steps (of the first 2 away_epochs epochs), or whole epochs as
    published: a run that stops at a forget NLL then ends in the midst of a turn away, before retain is repaired.
    """

    def loss(step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        turn = step.epoch if turns == "epoch" else step.index
        if step.epoch < 2 * away_epochs and turn % 2 == 1:
            return -forget.mean(tempered_kl_BT(forget.logits_BTV, forget.reference, temperature))
        return near * retain.mean(tempered_kl_BT(retain.logits_BTV, retain.reference, temperature)) + fit * retain.nll

    return loss
