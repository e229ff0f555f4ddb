"""Distances to a stored distribution: the label, its k likeliest others, and one bucket for the rest.

Shape suffixes: B examples, T positions, K kept entries, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.core.contracts import Reference


def cross_entropy_BT(logits_BTV: Tensor, index_BTK: Tensor, top_BTK: Tensor, rest_BT: Tensor) -> Tensor:
    """-sum q log p a position (nats), q given by log-probabilities; the rest counts as one class."""
    logp_BTV = logits_BTV.log_softmax(-1)
    kept_BTK = logp_BTV.gather(-1, index_BTK)
    found_BT = -(top_BTK.exp() * kept_BTK).sum(-1)
    rest_p_BT = rest_BT.exp()
    if bool((rest_p_BT > 0).any()):
        found_BT = found_BT - rest_p_BT * (1 - kept_BTK.exp().sum(-1)).clamp(min=1e-9).log()
    return found_BT


def kl_BT(logits_BTV: Tensor, reference: Reference) -> Tensor:
    """KL(origin || model) a position: a lower bound where the origin's rest is one bucket."""
    negative_BT = (reference.top_BTK.exp() * reference.top_BTK).sum(
        -1
    ) + reference.rest_BT.exp() * reference.rest_BT.clamp(min=-60)
    return cross_entropy_BT(logits_BTV, reference.index_BTK, reference.top_BTK, reference.rest_BT) + negative_BT


def lowered(reference: Reference, beta: float) -> tuple[Tensor, Tensor]:
    """The origin's distribution with beta taken off the label's logit: (top_BTK, rest_BT), normalised."""
    top_BTK = torch.cat([reference.top_BTK[..., :1] - beta, reference.top_BTK[..., 1:]], -1)
    norm_BT = torch.logaddexp(top_BTK.logsumexp(-1), reference.rest_BT)
    return top_BTK - norm_BT[..., None], reference.rest_BT - norm_BT
