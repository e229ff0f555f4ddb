"""The contrast of pairs, with each picture drawn onto its own caption."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Cross-modal alignment of pairs",
    paper="arXiv:2503.18817",
    equation="the regulariser of the distance between the modalities, beside the contrast",
    needs={"retain": {"nll", "image_embedding", "text_embedding"}},
    capabilities={"pairs"},
    fidelity="simplified",
    leaves_out="the fine-tuning of a large pair, and negative labels from a lexicon",
    means="Pictures and captions of what is known come to lie in one place, so that what is unknown has no caption "
    "near. Scores of pictures (`read_pictures`) are what it is for.",
    shown="Unseen pictures of drawn shapes end nearer to their class's prompt than under the contrast alone.",
    distributed=True,
)


def aligned_pairs(*, weight: Annotated[float, Ge(0)] = 1.0) -> Loss:
    """Go on training on retain pairs, and bring each picture's vector to its caption's.

    nll + weight |u - v|^2 / 2, in nats and half squared distances of unit vectors u and v: 1 less their cosine.
    """

    def loss(step: Step) -> Tensor:
        retain = step["retain"]
        cosine_B = (retain.own["image_embedding"] * retain.own["text_embedding"]).sum(-1)
        return retain.nll + weight * retain.mean(1 - cosine_B)

    return loss
