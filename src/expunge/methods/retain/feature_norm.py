"""Hidden states as long as the reference model's, and in its direction."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Step

CARD = MethodCard(
    "Distillation by feature norm and direction on retain",
    paper="arXiv:2305.17007",
    equation="8",
    needs={"retain": {"hidden", "nll"}},
    reference={"retain": {"hidden"}},
    fidelity="variant",
    leaves_out="class centres: the direction is that of the reference model's state of the same example, so that no "
    "labels are needed; and the KL of the teacher's logits, which is `retain: kl`",
    means="States may grow, and may not shrink or turn: the reference model's directions hold.",
    shown="Beside ascent, at equal forgetting, it keeps a point more of test accuracy than cross-entropy on the "
    "same 100 rows.",
    distributed=True,
)


class NormAndDirection(LossTerm):
    """The loss of feature_norm(), at the last block's output."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def declare(self, model: Model) -> None:
        self.path = model.blocks[-1]
        hidden = f"hidden:{self.path}"
        self.needs, self.reference = {"retain": {hidden, "nll"}}, {"retain": {hidden}}

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        now_BTD, then_BTD = retain.hidden[self.path].float(), retain.reference.hidden[self.path].float()
        now_BT, then_BT = now_BTD.norm(dim=-1), then_BTD.norm(dim=-1).clamp(min=1e-12)
        along_BT = (now_BTD * then_BTD).sum(-1) / then_BT
        return retain.nll + self.strength * retain.mean(1 - along_BT / torch.maximum(now_BT, then_BT))


def feature_norm(*, strength: Annotated[float, Ge(0)] = 2.0) -> LossTerm:
    """Go on training on retain with states no shorter than the reference model's, in its directions.

    NLL + strength (1 - s·e / max(|s|, |t|)) per position: s the state at the last block, t the reference's, e = t/|t|.
    """
    return NormAndDirection(strength)
