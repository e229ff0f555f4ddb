"""SimCSE: a contrast of the embeddings themselves, without a head."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn.functional import normalize

from expunge.core.card import Card
from expunge.models.contrast import contrast
from expunge.models.pretext import Pretext, ascend_alone

CARD = Card(
    "Simple contrastive learning of sentence embeddings",
    paper="arXiv:2104.08821",
    equation="4",
    means="How surely an example's first view finds its second among those of the examples around it: 0 nats where it "
    "is alone in its direction, the logarithm of the number of candidates where all look alike.",
)


class SimCSE(Pretext):
    """The loss of simcse()."""

    def __init__(self, temperature: float, together: int) -> None:
        self.temperature, self.together = temperature, together

    def head(self, width: int) -> nn.Module:
        return nn.Identity()

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        first_BD, second_BD = normalize(head(h_2BD), dim=-1)
        whole_B, own_B = (
            contrast(first_BD, second_BD, others_BD, 1 / self.temperature, self.together)
            for others_BD in (second_BD, second_BD.detach())
        )
        return ascend_alone(whole_B, own_B)


def simcse(
    *,
    temperature: Annotated[float, Gt(0)] = 0.05,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
) -> Pretext:
    """Let the first view of an example find its second among those of a batch, by the embeddings' own cosine.

    -log(exp(h·h'/temperature) / sum over the batch of exp(h·h'_j/temperature)), in nats; h, h': unit vectors. Nothing
    stands between the loss and the embeddings, so that a pretrained encoder needs no head that was thrown away. The
    negatives count as those of `together` examples whatever the batch's size. In the paper the two views of a text
    differ by dropout alone.
    """
    return SimCSE(temperature, together)
