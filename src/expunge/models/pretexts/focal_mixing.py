"""NT-Xent that looks at what is hard: focal weights, and negatives that are mixed from the hardest."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn.functional import normalize

from expunge.core.card import Card
from expunge.models.pretext import Pretext
from expunge.models.pretexts._contrast import Contrast, Cosines, against

CARD = Card(
    "Focal contrast with mixed hard negatives",
    paper="arXiv:2506.20923",
    equation="the focal weights and the online mixing of hard negatives, in pairs of equal share; the paper draws it",
    means="As NT-Xent where a view is hard to find, less where it is easy.",
)


class FocalMixing(Contrast):
    """The loss of focal_mixing()."""

    def __init__(self, focus: float, mixed: int, temperature: float, together: int, size: int) -> None:
        super().__init__(together, size)
        self.focus, self.mixed, self.temperature = focus, mixed, temperature

    def contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] mean over an example's views of the weighted cross-entropy."""
        cosines = Cosines.of(z_2BP, others_2BP)
        negatives_2B = cosines.negatives(self.temperature).logsumexp(-1) + self.share(z_2BP.shape[1])
        hard_2BM = self._mixtures(cosines, z_2BP, others_2BP) / self.temperature
        if hard_2BM.shape[-1]:
            negatives_2B = torch.logaddexp(negatives_2B, hard_2BM.logsumexp(-1))
        loss_2B = against(cosines.partner_B / self.temperature, negatives_2B)
        chance_2B = (-loss_2B.detach()).exp()
        return ((1 - chance_2B) ** self.focus * loss_2B).mean(0)

    def _mixtures(self, cosines: Cosines, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[2, B, M] cosines with mixtures of the nearest negatives, the nearest with the second, and so on."""
        near_2BR = cosines.negatives(1.0).detach()
        count = min(self.mixed + 1, near_2BR.shape[-1] - 2)
        places_2BK = near_2BR.topk(count, -1).indices
        hard_2BKP = others_2BP.flatten(0, 1)[places_2BK]
        mixed_2BMP = normalize(hard_2BKP[..., :-1, :] + hard_2BKP[..., 1:, :], dim=-1)
        return (z_2BP[..., None, :] * mixed_2BMP).sum(-1)


def focal_mixing(
    *,
    focus: Annotated[float, Ge(0)] = 0.5,
    mixed: Annotated[int, Ge(0), Le(1024)] = 4,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """NT-Xent with further negatives between the hardest ones, times (1 - p)^focus.

    p: the chance that a view gives to the other one, whose weight gets no gradient. The negatives are the batch's and
    `mixed` unit vectors halfway between an example's nearest negatives of neighbouring rank.
    """
    return FocalMixing(focus, mixed, temperature, together, size)
