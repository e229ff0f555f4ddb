"""SimSiam: views that predict one another, without negatives."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from expunge.core.card import Card
from expunge.models.pretext import Pretext

CARD = Card(
    "Simple siamese representation learning",
    paper="arXiv:2011.10566",
    equation="4",
    means="One minus the cosine between what is predicted of a view and that view: 0 where they agree, 2 where they "
    "are opposite. An encoder that maps all to one point has 0 as well: read RankMe beside it.",
)


class Siamese(nn.Module):
    """A projector [width -> size] and a predictor [size -> size] through a bottleneck."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(width, size, bias=False),
            nn.BatchNorm1d(size),
            nn.ReLU(),
            nn.Linear(size, size, bias=False),
            nn.BatchNorm1d(size, affine=False),
        )
        narrow = max(1, size // 4)
        self.predictor = nn.Sequential(
            nn.Linear(size, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU(), nn.Linear(narrow, size)
        )

    def forward(self, h_RD: Tensor) -> tuple[Tensor, Tensor]:
        """([R, size] projections, [R, size] predictions of the other view's)."""
        z_RP = self.projector(h_RD)
        return z_RP, self.predictor(z_RP)


class SimSiam(Pretext):
    """The loss of simsiam()."""

    def __init__(self, size: int) -> None:
        self.size = size

    def head(self, width: int) -> nn.Module:
        return Siamese(width, self.size)

    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        z_RP, p_RP = head(h_2BD.flatten(0, 1))
        z_2BP, p_2BP = (found.unflatten(0, h_2BD.shape[:2]) for found in (z_RP, p_RP))
        return (1 - cosine_similarity(p_2BP, z_2BP.flip(0).detach(), dim=-1)).mean(0)


def simsiam(*, size: Annotated[int, Ge(4), Le(65_536)] = 64) -> Pretext:
    """Let each view predict the other one's projection, which gets no gradient.

    1 - cos(p, stop(z')), the mean over both directions: the paper's loss plus 1, so that it is never negative. z:
    projection [size] of two layers; p: prediction from it by two layers with a quarter of the width in between.
    """
    return SimSiam(size)
