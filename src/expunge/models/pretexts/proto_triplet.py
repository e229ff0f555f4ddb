"""Triplets of a view and the prototypes of a batch's examples."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.card import Card
from expunge.models.pretext import Pretext
from expunge.models.pretexts._contrast import Contrast, Cosines

CARD = Card(
    "Proto-triplet (SuSana distances)",
    paper="arXiv:2305.09062",
    equation="the proto-triplet loss in episodes of one shot: a class is an example, its support one view",
    means="How far another example's view comes within the margin of an example's own, on the unit sphere: 0 where no "
    "example of the batch does, so that it says nothing beyond.",
)


class ProtoTriplet(Contrast):
    """The loss of proto_triplet()."""

    def __init__(self, margin: float, together: int, size: int) -> None:
        super().__init__(together, size)
        self.margin = margin

    def contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] mean over an example's views, and over the other examples' prototypes."""
        cosines, count = Cosines.of(z_2BP, others_2BP), z_2BP.shape[1]
        # On the unit sphere a squared distance is 2 - 2 cos.
        near_B = 2 - 2 * cosines.partner_B
        far_2BR = 2 - 2 * cosines.alike_2BR
        over_2BR = (near_B[:, None] - far_2BR + self.margin).clamp(min=0).masked_fill(cosines.own_BR, 0.0)
        # A view's prototypes are the other examples' opposite views.
        crossed_B = over_2BR[0, :, count:].sum(-1) + over_2BR[1, :, :count].sum(-1)
        return crossed_B / (2 * (count - 1))


def proto_triplet(
    *,
    margin: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """Hold each view nearer to its own example's prototype than to any other's, by a margin.

    The mean over both views and the other examples of max(0, d(z, own) - d(z, other) + margin), d squared distances
    between unit vectors (0 to 4); the prototype of an example is its other view.
    """
    return ProtoTriplet(margin, together, size)
