"""Log-probabilities and entropies mapped to those of data that were never seen, quantile by quantile."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical

LIKELIEST = -1e-4
"""Log-probability of a label that is all but certain, so that others keep a share to be normalised over."""
SPAN, HALVINGS = 4.0, 16
"""Natural logarithm of the largest inverse temperature, and how often the way between it and the least is halved."""


def match_quantiles(value_N: Tensor, unseen_M: Tensor) -> Tensor:
    """[N] each value replaced by the unseen values' quantile at its own rank: themselves where N is M."""
    ordered_M = unseen_M.sort().values
    place_N = places(value_N, len(ordered_M))
    below_N = place_N.long()
    above_N = (below_N + 1).clamp(max=len(ordered_M) - 1)
    return torch.lerp(ordered_M[below_N], ordered_M[above_N], (place_N - below_N).to(ordered_M.dtype))


def match_partners(value_N: Tensor, unseen_M: Tensor, beside_M: Tensor) -> Tensor:
    """[N] the partner of the unseen value whose rank is nearest to each value's own, so that pairs stay together.

    beside_M: the partner of each unseen value.
    """
    return beside_M[unseen_M.argsort(stable=True)][places(value_N, len(unseen_M)).round().long()]


def places(value_N: Tensor, count: int) -> Tensor:
    """[N] the rank of each value, on the scale of `count` others: between 0 and count - 1."""
    rank_N = value_N.argsort(stable=True).argsort(stable=True)
    return ((rank_N + 0.5) * count / max(1, len(value_N)) - 0.5).clamp(0, count - 1)


def with_entropy(logp_TV: Tensor, entropy_T: Tensor) -> Tensor:
    """The distributions at the temperatures at which they have these entropies (nats), as near as there are any.

    Entropy falls with the inverse temperature, which is halved for between e^-SPAN and e^SPAN.
    """
    low_T, high_T = torch.full_like(entropy_T, -SPAN), torch.full_like(entropy_T, SPAN)
    for _ in range(HALVINGS):
        middle_T = (low_T + high_T) / 2
        too_flat_T = entropy_of(at_power(logp_TV, middle_T.exp())) > entropy_T
        low_T, high_T = torch.where(too_flat_T, middle_T, low_T), torch.where(too_flat_T, high_T, middle_T)
    return at_power(logp_TV, ((low_T + high_T) / 2).exp())


def at_power(logp_TV: Tensor, power_T: Tensor) -> Tensor:
    """p^power, normalised; what has no probability keeps none."""
    return (logp_TV * power_T[:, None]).log_softmax(-1)


def entropy_of(logp_TV: Tensor) -> Tensor:
    """[T] entropies in nats."""
    return Categorical(logits=logp_TV, validate_args=False).entropy()


def with_label(top_TK: Tensor, rest_T: Tensor, label_T: Tensor) -> tuple[Tensor, Tensor]:
    """A distribution by position, label first, with the label's log-probability set and the others scaled to fit.

    top_TK, rest_T: log-probabilities of the label and the next likely, and of all else together.
    """
    label_T = label_T.clamp(max=LIKELIEST)
    others_T = torch.logaddexp(top_TK[:, 1:].logsumexp(-1), rest_T)
    scale_T = torch.log1p(-label_T.exp()) - others_T
    return torch.cat([label_T[:, None], top_TK[:, 1:] + scale_T[:, None]], -1), rest_T + scale_T
