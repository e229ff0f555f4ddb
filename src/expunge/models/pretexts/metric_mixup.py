"""NT-Xent and a contrast with mixtures of a positive and a negative."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn.functional import normalize

from expunge.core.card import Card
from expunge.models.pretext import Pretext
from expunge.models.pretexts._contrast import Cosines
from expunge.models.pretexts.nt_xent import NTXent

CARD = Card(
    "Metric mixup",
    paper="arXiv:2106.04990",
    equation="12 with the contrastive loss, mixtures of embeddings; shares at the quartiles of Beta(2, 2) in the place "
    "of draws",
    means="NT-Xent and, beside it, how much further an example's view lies from mixtures of its other view and another "
    "example than their share of that view says.",
)
SHARES = (0.326, 0.5, 0.674)
"""Quartiles of Beta(2, 2), which the paper draws from."""


class MetricMixup(NTXent):
    """The loss of metric_mixup()."""

    def __init__(self, weight: float, margin: float, temperature: float, together: int, size: int) -> None:
        super().__init__(temperature, together, size)
        self.weight, self.margin = weight, margin

    def contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] NT-Xent plus the contrast with mixtures."""
        own_BR = Cosines.of(z_2BP, others_2BP).own_BR
        other_BR = (~own_BR).to(z_2BP.dtype)
        mixed_B = 0 * z_2BP.sum((0, 2))
        for share in SHARES:
            for view, positive in ((0, 1), (1, 0)):
                v_BRP = share * z_2BP[positive][:, None] + (1 - share) * others_2BP.flatten(0, 1)[None]
                alike_BR = (z_2BP[view][:, None] * normalize(v_BRP, dim=-1)).sum(-1)
                loss_BR = share * (1 - alike_BR) + (1 - share) * (alike_BR - self.margin).clamp(min=0)
                mixed_B = mixed_B + (loss_BR * other_BR).sum(-1) / other_BR.sum(-1)
        return super().contrast(z_2BP, others_2BP) + self.weight * mixed_B / (2 * len(SHARES))


def metric_mixup(
    *,
    weight: Annotated[float, Ge(0)] = 0.4,
    margin: Annotated[float, Ge(-1), Le(1)] = 0.5,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """Place mixtures of the other view and a negative between the two.

    NT-Xent + weight times the mean, over views, negatives n and three shares s, of s (1 - z·v) + (1 - s) max(0, z·v -
    margin), v the unit vector of s z' + (1 - s) n: a mixture is a positive by its share s and a negative by the rest.
    """
    return MetricMixup(weight, margin, temperature, together, size)
