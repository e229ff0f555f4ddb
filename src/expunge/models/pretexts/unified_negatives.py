"""A contrast of each pair of views with all negative pairs of a batch."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.card import Card
from expunge.models.pretext import Pretext
from expunge.models.pretexts._contrast import Contrast, Cosines, against

CARD = Card(
    "Unified negative pairs",
    paper="arXiv:2203.11593",
    equation="the unified loss with its noise filter, on the batch's pairs alone: without labels there are no class "
    "centres to pair with",
    means="How far the cosine of an example's views lies above those of all pairs of different examples in the batch, "
    "not of its own pairs alone: one level for the whole batch.",
)


class UnifiedNegatives(Contrast):
    """The loss of unified_negatives()."""

    def __init__(self, whisker: float, temperature: float, together: int, size: int) -> None:
        super().__init__(together, size)
        self.whisker, self.temperature = whisker, temperature

    def contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] the cross-entropy of an example's pair against the batch's negative pairs."""
        cosines, count = Cosines.of(z_2BP, others_2BP), z_2BP.shape[1]
        apart_2BR = Cosines.of(others_2BP, others_2BP).alike_2BR
        noise_2BR = self._noise(apart_2BR.detach(), cosines.own_BR)
        own_B = cosines.negatives(self.temperature).masked_fill(noise_2BR, -torch.inf).logsumexp((0, 2))
        pairs_2BR = (apart_2BR / self.temperature).masked_fill(noise_2BR, -torch.inf)
        same_BB = torch.eye(count, dtype=torch.bool, device=z_2BP.device)
        rows_B = pairs_2BR.exp().sum((0, 2))
        rest_B = (rows_B[None] * ~same_BB).sum(-1).clamp(min=torch.finfo(rows_B.dtype).tiny).log()
        scale = math.log(self.together * (self.together - 1) / (count * (count - 1)))
        return against(cosines.partner_B / self.temperature, torch.logaddexp(own_B, rest_B) + scale)

    def _noise(self, alike_2BR: Tensor, own_BR: Tensor) -> Tensor:
        """[2, B, R] an example's own pairs, and those whose cosine lies beyond the whiskers of all the others."""
        own_2BR = own_BR.expand_as(alike_2BR)
        apart_N = alike_2BR[~own_2BR].float()
        low, high = apart_N.quantile(0.25), apart_N.quantile(0.75)
        reach = self.whisker * (high - low)
        return own_2BR | (alike_2BR < low - reach) | (alike_2BR > high + reach)


def unified_negatives(
    *,
    whisker: Annotated[float, Gt(0)] = 1.0,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """Let the views of each example be nearer to one another than any two examples of the batch are.

    -log(exp(z·z'/temperature) / (the same + the sum of exp(n·m/temperature) over ALL pairs n, m of views of different
    examples)), in nats. Pairs further than `whisker` times the interquartile range outside the quartiles are left out:
    the nearest may show one thing, the furthest teach nothing. The sum counts as that of `together` examples.
    """
    return UnifiedNegatives(whisker, temperature, together, size)
