"""The cross-entropy of an example's partner among the partners of its batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def contrast(first_BD: Tensor, second_BD: Tensor, others_BD: Tensor, scale: Tensor | float, together: int) -> Tensor:
    """[B] -log softmax of scale * first·second among the second ones of the batch, in nats; 0 for a batch of one.

    first, second: unit vectors. others: the second ones as negatives, held fixed where they are detached. A short batch
    counts as one of `together` examples would: its examples' losses compare with all others.
    """
    count = len(first_BD)
    partner_B = (first_BD * second_BD).sum(-1) * scale
    if count < 2:
        return 0 * partner_B
    own_BB = torch.eye(count, dtype=torch.bool, device=first_BD.device)
    negatives_BB = (first_BD @ others_BD.T * scale).masked_fill(own_BB, -torch.inf)
    negatives_B = negatives_BB.logsumexp(-1) + math.log((together - 1) / (count - 1))
    return torch.logaddexp(partner_B, negatives_B) - partner_B
