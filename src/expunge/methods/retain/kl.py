"""KL divergence from the reference model on retain data."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Step
from expunge.methods._distribution import kl_BT

CARD = MethodCard(
    "KL divergence from the reference model on retain",
    paper="arXiv:2401.06121",
    equation="KL minimisation",
    needs={"retain": {"logits"}},
    reference={"retain": {"topk:64"}},
    fidelity="simplified",
    leaves_out="what lies beyond the 64 likeliest tokens: one bucket, and so a lower bound",
    distributed=True,
)


def kl(*, k: Annotated[int, Gt(0)] = 64) -> LossTerm:
    """Keep the retain examples' whole distribution where it was.

    KL(reference || model) per position over the label, the reference model's k most likely others and one bucket for
    the rest: a lower bound of the KL (the whole below a vocabulary of 4,096). The reference model's values are cached,
    so no second model is in memory.
    """

    def loss(step: Step) -> Tensor:
        retain = step["retain"]
        return retain.mean(kl_BT(retain.logits_BTV, retain.reference))

    return LossTerm(loss, reference={"retain": {f"topk:{k}"}})
