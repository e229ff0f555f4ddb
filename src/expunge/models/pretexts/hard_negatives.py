"""A contrast whose hardest negatives count most."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.card import Card
from expunge.models.pretext import Pretext
from expunge.models.pretexts._contrast import Contrast, Cosines, against

CARD = Card(
    "Contrast with hard negatives",
    paper="arXiv:2010.04592",
    equation="4, without the correction for false negatives",
    means="As NT-Xent, of which it is the case of a concentration of 0; the more it concentrates on the nearest other "
    "examples, the higher the figure.",
)


class HardNegatives(Contrast):
    """The loss of hard_negatives()."""

    def __init__(self, concentration: float, temperature: float, together: int, size: int) -> None:
        super().__init__(together, size)
        self.concentration, self.temperature = concentration, temperature

    def contrast(self, z_2BP: Tensor, others_2BP: Tensor) -> Tensor:
        """[B] mean over an example's views of the cross-entropy with weighted negatives."""
        cosines = Cosines.of(z_2BP, others_2BP)
        alike_2BR, power = cosines.negatives(self.temperature), self.concentration
        # The mean of exp(a) under weights of exp(power · a), times the number of negatives of a whole batch.
        hard_2B = ((1 + power) * alike_2BR).logsumexp(-1)
        weights_2B = (power * alike_2BR).masked_fill(cosines.own_BR, -math.inf).logsumexp(-1)
        negatives_2B = hard_2B - weights_2B + math.log(2 * (self.together - 1))
        return against(cosines.partner_B / self.temperature, negatives_2B).mean(0)


def hard_negatives(
    *,
    concentration: Annotated[float, Ge(0)] = 1.0,
    temperature: Annotated[float, Gt(0)] = 0.5,
    together: Annotated[int, Ge(2), Le(65_536)] = 64,
    size: Annotated[int, Ge(1), Le(65_536)] = 32,
) -> Pretext:
    """NT-Xent with negatives weighted by how near they are.

    The sum over the negatives is N times the mean of exp(a) under weights proportional to exp(concentration · a),
    a = z·n/temperature, N = 2(together - 1). The paper takes concentrations of .5 to 2.
    """
    return HardNegatives(concentration, temperature, together, size)
