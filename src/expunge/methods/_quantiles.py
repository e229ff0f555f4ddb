"""Log-probabilities mapped to those of data that were never seen, quantile by quantile."""

from __future__ import annotations

import torch
from torch import Tensor

LIKELIEST = -1e-4
"""Log-probability of a label that is all but certain, so that others keep a share to be normalised over."""


def match_quantiles(value_N: Tensor, unseen_M: Tensor) -> Tensor:
    """[N] each value replaced by the unseen values' quantile at its own rank: themselves where N is M."""
    rank_N = value_N.argsort(stable=True).argsort(stable=True)
    ordered_M = unseen_M.sort().values
    count = len(ordered_M)
    place_N = ((rank_N + 0.5) * count / max(1, len(value_N)) - 0.5).clamp(0, count - 1)
    below_N = place_N.long()
    above_N = (below_N + 1).clamp(max=count - 1)
    return torch.lerp(ordered_M[below_N], ordered_M[above_N], (place_N - below_N).to(ordered_M.dtype))


def with_label(top_TK: Tensor, rest_T: Tensor, label_T: Tensor) -> tuple[Tensor, Tensor]:
    """A distribution by position, label first, with the label's log-probability set and the others scaled to fit.

    top_TK, rest_T: log-probabilities of the label and the next likely, and of all else together.
    """
    label_T = label_T.clamp(max=LIKELIEST)
    others_T = torch.logaddexp(top_TK[:, 1:].logsumexp(-1), rest_T)
    scale_T = torch.log1p(-label_T.exp()) - others_T
    return torch.cat([label_T[:, None], top_TK[:, 1:] + scale_T[:, None]], -1), rest_T + scale_T
