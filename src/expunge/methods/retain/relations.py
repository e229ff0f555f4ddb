"""How alike the examples of a batch are, by the reference model's states."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import normalize

from expunge.core.contracts import LossTerm, MethodCard, Model, Step

CARD = MethodCard(
    "Token relationships on retain",
    paper="arXiv:2306.12442",
    equation="the inner-graph loss over the tokens of a batch",
    needs={"retain": {"hidden"}},
    reference={"retain": {"hidden"}},
    fidelity="simplified",
    leaves_out="the sampling of tokens and its contrast between teacher and student; the graph is that of the counted "
    "positions of one part of a batch",
    means="Keeps who is near whom, not where: a state may turn as long as all turn together.",
    shown="It holds test accuracy against as many steps of ascent with no true label of retain; at equal "
    "forgetting no more than cross-entropy does.",
)


class Relations(LossTerm):
    """The loss of relations(), at the last block's output."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def declare(self, model: Model) -> None:
        self.path = model.blocks[-1]
        self.needs = self.reference = {"retain": {f"hidden:{self.path}"}}

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        mask_BT = retain.mask_BT
        now_RD, then_RD = (
            normalize(states[self.path][mask_BT].float(), dim=-1) for states in (retain.hidden, retain.reference.hidden)
        )
        if len(now_RD) < 2:
            return retain.mean(0 * retain.hidden[self.path].sum(-1))
        now_RR, then_RR = (self._likeness(state_RD) for state_RD in (now_RD, then_RD))
        far_BT = torch.zeros_like(mask_BT, dtype=now_RR.dtype)
        far_BT[mask_BT] = (then_RR.exp() * (then_RR - now_RR)).sum(-1)
        return retain.mean(far_BT)

    def _likeness(self, state_RD: Tensor) -> Tensor:
        """[R, R] log-probabilities of each position's neighbours, of itself next to none."""
        own_RR = torch.eye(len(state_RD), dtype=torch.bool, device=state_RD.device)
        return (state_RD @ state_RD.T / self.temperature).masked_fill(own_RR, -1e4).log_softmax(-1)


def relations(*, temperature: Annotated[float, Gt(0)] = 0.2) -> LossTerm:
    """Keep who is near whom among the retain examples of a batch.

    KL(reference || model) per position (nats) between softmaxes of the cosines of its state with those of all other
    counted positions, over the temperature. It is a figure of the batch: smaller parts compare with fewer others.
    """
    return Relations(temperature)
