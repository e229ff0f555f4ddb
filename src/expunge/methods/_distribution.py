"""Distances to a stored distribution: the label, its k most likely others, and one bucket for the rest.

Shape suffixes: B examples, T positions, K kept entries, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.core.contracts import Reference


def cross_entropy_BT(logits_BTV: Tensor, index_BTK: Tensor, top_BTK: Tensor, rest_BT: Tensor) -> Tensor:
    """Cross-entropy -sum q log p per position (nats), q given by log-probabilities; the rest counts as one class."""
    logp_BTV = logits_BTV.log_softmax(-1)
    logp_BTK = logp_BTV.gather(-1, index_BTK)
    total_BT = -(top_BTK.exp() * logp_BTK).sum(-1)
    rest_p_BT = rest_BT.exp()
    if bool((rest_p_BT > 0).any()):
        total_BT = total_BT - rest_p_BT * (1 - logp_BTK.exp().sum(-1)).clamp(min=1e-9).log()
    return total_BT


def kl_BT(logits_BTV: Tensor, reference: Reference) -> Tensor:
    """KL(reference || model) per position (nats): a lower bound where the reference's rest is one bucket."""
    top_BT = (reference.top_BTK.exp() * reference.top_BTK).sum(-1)
    entropy_BT = -(top_BT + reference.rest_BT.exp() * reference.rest_BT.clamp(min=-60))
    return cross_entropy_BT(logits_BTV, reference.index_BTK, reference.top_BTK, reference.rest_BT) - entropy_BT


def tempered_kl_BT(logits_BTV: Tensor, reference: Reference, temperature: float) -> Tensor:
    """temperature^2 KL(reference || model) per position (nats), all log-probabilities divided by it (1503.02531).

    The reference's rest, where there is one, counts as one class on both sides.
    """
    now_BTK, then_BTK = both_BTK(logits_BTV, reference)
    now_BTK, then_BTK = ((logp_BTK / temperature).log_softmax(-1) for logp_BTK in (now_BTK, then_BTK))
    return temperature**2 * (then_BTK.exp() * (then_BTK - now_BTK)).sum(-1)


def both_BTK(logits_BTV: Tensor, reference: Reference) -> tuple[Tensor, Tensor]:
    """(the model's, the reference's) log-probabilities of the entries that the reference kept, the label's first.

    The rest, where there is one, is the last entry of both.
    """
    index_BTK, then_BTK = reference.index_BTK, reference.top_BTK
    logp_BTV = logits_BTV.log_softmax(-1)
    now_BTK = logp_BTV.gather(-1, index_BTK)
    if index_BTK.shape[-1] < logits_BTV.shape[-1]:
        # Summed, not 1 minus the others: a root would raise the difference's rounding.
        rest_BT = logp_BTV.scatter(-1, index_BTK, -torch.inf).logsumexp(-1)
        now_BTK = torch.cat([now_BTK, rest_BT[..., None]], -1)
        then_BTK = torch.cat([then_BTK, reference.rest_BT.clamp(min=-60)[..., None]], -1)
    return now_BTK, then_BTK


def squares_BT(logits_BTV: Tensor, reference: Reference) -> Tensor:
    """[B, T] mean squared difference of the log-probabilities (nats) of the entries that the reference kept."""
    now_BTK = logits_BTV.log_softmax(-1).gather(-1, reference.index_BTK)
    return (now_BTK - reference.top_BTK).square().mean(-1)


def lower_label(reference: Reference, beta: float) -> tuple[Tensor, Tensor]:
    """Return the reference distribution with beta taken off the label's logit: (top_BTK, rest_BT), normalised."""
    top_BTK = torch.cat([reference.top_BTK[..., :1] - beta, reference.top_BTK[..., 1:]], -1)
    norm_BT = torch.logaddexp(top_BTK.logsumexp(-1), reference.rest_BT)
    return top_BTK - norm_BT[..., None], reference.rest_BT - norm_BT
