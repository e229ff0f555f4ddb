"""NT-Xent, the loss of SimCLR."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.card import Card
from expunge.models.pretext import Pretext
from expunge.models.pretexts._contrast import Contrast, Cosines, against

CARD = Card(
    "Normalised temperature-scaled cross-entropy",
    paper="arXiv:2002.05709",
    equation="1",
    means="How surely each view finds the other among the views of the examples around it: 0 nats where it is alone "
    "in its direction, the logarithm of the number of candidates where all look alike.",
)


class NTXent(Contrast):
    """The loss of nt_xent()."""

    def __init__(self, temperature: float, together: int, size: int) -> None:
        super().__init__(together, size)
        self.temperature = temperature

    def contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] mean over an example's views of the cross-entropy."""
        cosines = Cosines.of(z_2BP, others_2BP)
        negatives_2B = cosines.negatives(self.temperature).logsumexp(-1) + self.share(z_2BP.shape[1])
        return against(cosines.partner_B / self.temperature, negatives_2B).mean(0)


def nt_xent(
    *,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """Let each view of an example find the other one among the views of a batch.

    -log(exp(z·z'/temperature) / (the same + the sum of exp(z·n/temperature) over the negatives n)), the mean over both
    views, in nats; z: unit vectors [size] that a hidden layer makes of the embedding. The negatives are both views of
    all other examples of the batch, and count as those of `together` examples whatever the batch's size; a batch of
    `together` examples has the paper's loss. In eval mode so many are read together.
    """
    return NTXent(temperature, together, size)
