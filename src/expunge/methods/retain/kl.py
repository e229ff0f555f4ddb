"""KL to the origin on retain data."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import Card, Loss, Step

CARD = Card(
    "KL divergence from the origin on retain",
    paper="arXiv:2401.06121",
    equation="KL minimisation",
    needs={"retain": {"logits"}},
    origin={"retain": {"topk:64"}},
)


def kl(*, k: Annotated[int, Gt(0)] = 64) -> Loss:
    """Keep the retain examples' whole distribution where it was.

    KL(origin || model) a position over the label, the origin's k most likely others and one bucket
    for the rest: a lower bound of the KL (full below a vocabulary of 4,096). The origin's values are
    cached, so no second model is held.
    """

    def loss(step: Step) -> Tensor:
        retain = step["retain"]
        logp_BTV = retain.logits_BTV.log_softmax(-1)
        origin = retain.origin
        kept_BTK = logp_BTV.gather(-1, origin.index_BTK)
        kl_BT = (origin.top_BTK.exp() * (origin.top_BTK - kept_BTK)).sum(-1)
        rest_BT = origin.rest_BT.exp()
        if bool((rest_BT > 0).any()):
            left_BT = (1 - kept_BTK.exp().sum(-1)).clamp(min=1e-9).log()
            kl_BT = kl_BT + rest_BT * (origin.rest_BT.clamp(min=-60) - left_BT)
        return retain.mean(kl_BT)

    loss.origin = {"retain": {f"topk:{k}"}}  # type: ignore[attr-defined]
    return loss
