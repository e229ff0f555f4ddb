"""NT-Xent without the negatives that a clustering holds for the same thing."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from expunge.core.card import Card
from expunge.models.pretext import Pretext, Seen, ascend_alone
from expunge.models.pretexts._contrast import Cosines, against, unit_views
from expunge.models.pretexts.nt_xent import NTXent

CARD = Card(
    "Guided NT-Xent (G-SimCLR)",
    paper="arXiv:2009.12007",
    equation="section 3; k-means on the principal components of the batch (a linear autoencoder) in the place of a "
    "denoising one of the whole set, and pairs of a cluster left out in the place of batches without such pairs",
    means="As NT-Xent, with fewer negatives: those of an example's own cluster are not asked to be apart.",
)
COMPONENTS, ROUNDS = 16, 10
NONE = -1e9
"""In the place of minus infinity, whose gradient is undefined where all negatives are left out."""


class GuidedNTXent(NTXent):
    """The loss of guided_nt_xent()."""

    def __init__(self, clusters: int, temperature: float, together: int, size: int) -> None:
        super().__init__(temperature, together, size)
        self.clusters = clusters

    def losses_of(self, head: nn.Module, h_2BD: Tensor, seen: Seen) -> Tensor:
        z_2BP = unit_views(head, h_2BD)
        if z_2BP.shape[1] == 1:
            return 0 * z_2BP.sum((0, 2))
        groups_B = group_alike(seen.x_BCHW.flatten(1), self.clusters)
        whole_B, own_B = (self._contrast_with(z_2BP, others_2BP, groups_B) for others_2BP in (z_2BP, z_2BP.detach()))
        return ascend_alone(whole_B, own_B)

    def _contrast_with(self, z_2BP: Tensor, others_2BP: Tensor, groups_B: Tensor) -> Tensor:
        """[B] mean over an example's views of the cross-entropy with the negatives of other clusters."""
        cosines = Cosines.of(z_2BP, others_2BP)
        alike_BR = (groups_B[:, None] == groups_B[None]).repeat(1, 2)
        negatives_2B = cosines.negatives(self.temperature).masked_fill(alike_BR, NONE).logsumexp(-1)
        return against(cosines.partner_B / self.temperature, negatives_2B + self.share(len(groups_B))).mean(0)


@torch.no_grad()
def group_alike(x_BD: Tensor, clusters: int) -> Tensor:
    """[B] cluster of each row by k-means on its principal components, from centres that lie far apart.

    It draws nothing: the first centre is the row nearest to the mean, each further one the row furthest from all.
    """
    lead_BD = (x_BD - x_BD.mean(0)).double()
    u_BK, scale_K, _ = torch.linalg.svd(lead_BD, full_matrices=False)
    code_BK = (u_BK * scale_K)[:, :COMPONENTS]
    places = [int(code_BK.square().sum(-1).argmin())]
    for _ in range(min(clusters, len(x_BD)) - 1):
        places.append(int(torch.cdist(code_BK, code_BK[places]).min(-1).values.argmax()))
    centres_KD = code_BK[places]
    for _ in range(ROUNDS):
        group_B = torch.cdist(code_BK, centres_KD).argmin(-1)
        one_hot_KB = torch.nn.functional.one_hot(group_B, len(centres_KD)).T.to(code_BK.dtype)
        count_K1 = one_hot_KB.sum(-1, keepdim=True)
        centres_KD = torch.where(count_K1 > 0, one_hot_KB @ code_BK / count_K1.clamp(min=1), centres_KD)
    return group_B


def guided_nt_xent(
    *,
    clusters: Annotated[int, Ge(2), Le(65_536)] = 10,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """NT-Xent in which examples of one pseudo-class are no negatives of one another.

    The pseudo-classes are clusters of the batch's pictures, not of their embeddings: they stay the same while the
    encoder learns. clusters: about as many as there are kinds of pictures; more leave more negatives. No label is read.
    """
    return GuidedNTXent(clusters, temperature, together, size)
