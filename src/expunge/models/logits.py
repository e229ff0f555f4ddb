"""From hidden states or logits to what was asked of them, at the counted positions only.

Shape suffixes: N counted positions of a batch, laid out one after the other; V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from expunge.core import channels
from expunge.core.contracts import Want

CHUNK = 2**25
"""Logits held at once (elements) where they are computed again for the backward pass: 128 MB in float32."""
READ_CHUNK = 2**24
"""The same without gradients, where smaller blocks cost nothing."""
LARGE = 2**22
"""Logits from which their memory counts. Below, gradients have the bits of torch's own kernels."""
FULL_BELOW = 4096
"""Vocabularies below this keep their whole distribution where top-k is asked for."""


LABELS = frozenset({"nll", "logp"})
"""Channels of the labels' log-probabilities alone."""
FIELDS = {field.partition("_")[0]: field for field in channels.TIMED}
"""What `measure_NV` calls a value -> the field of an Output that holds it by example and position."""


def fields(found: dict[str, Tensor]) -> dict[str, Any]:
    """An Output's fields from values that are spread over [B, T, ...]."""
    return {field: found[name] for name, field in FIELDS.items() if name in found}


def spread(value_N: Tensor, mask_BT: Tensor) -> Tensor:
    """[N, ...] back to [B, T, ...], zero where nothing counts."""
    full = value_N.new_zeros((*mask_BT.shape, *value_N.shape[1:]))
    full[mask_BT] = value_N
    return full


def kept_entries(vocabulary: int, k: int) -> int:
    """How many entries of a distribution `topk` keeps, the label included."""
    return vocabulary if vocabulary < FULL_BELOW or k <= 0 or k + 1 >= vocabulary else k + 1


class _LabelLogp(torch.autograd.Function):
    """[N] the log-probability of each label.

    torch's `log_softmax` and `gather` hold a third [N, V] in the backward pass, which is zero but for the labels.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        logp_NV = logits_NV.log_softmax(-1)
        ctx.save_for_backward(logp_NV, labels_N)
        return logp_NV.gather(-1, labels_N[:, None])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        logp_NV, labels_N = ctx.saved_tensors
        grad_N1 = grad_N[:, None]
        return logp_NV.exp().mul_(-grad_N1).scatter_add_(-1, labels_N[:, None], grad_N1), None


def measure_NV(logits_NV: Tensor, labels_N: Tensor, want: Want) -> dict[str, Tensor]:
    """The asked channels of a block of positions, each [N, ...] in float32."""
    logits_NV = logits_NV.float()
    if want.channels <= LABELS and logits_NV.numel() >= LARGE:
        return {"logp": _LabelLogp.apply(logits_NV, labels_N)}
    logp_NV = logits_NV.log_softmax(-1)
    found = {"logp": logp_NV.gather(-1, labels_N[:, None])[:, 0]}
    if "logits" in want.channels:
        found["logits"] = logits_NV
    if "argmax" in want.channels:
        found["argmax"] = logits_NV.argmax(-1)
    if "moments" in want.channels:
        p_NV = logp_NV.exp()
        found["mu"] = (p_NV * logp_NV).sum(-1)
        found["sigma"] = (p_NV * (logp_NV - found["mu"][:, None]).square()).sum(-1).sqrt()
    if "topk" in want.channels:
        found |= _top(logp_NV, labels_N, want.k)
    return found


def _top(logp_NV: Tensor, labels_N: Tensor, k: int) -> dict[str, Tensor]:
    """The label, the k most likely others, and one bucket for the rest."""
    size = kept_entries(logp_NV.shape[-1], k)
    label_N1 = labels_N[:, None]
    others_NV = logp_NV.scatter(-1, label_N1, -torch.inf)
    if size == logp_NV.shape[-1]:
        order = descending(others_NV.scatter(-1, label_N1, torch.inf))
        return {"index": order, "top": logp_NV.gather(-1, order), "rest": torch.full_like(logp_NV[:, 0], -torch.inf)}
    index_NK = torch.cat([label_N1, others_NV.topk(size - 1).indices], -1)
    top_NK = logp_NV.gather(-1, index_NK)
    rest_N = logp_NV.scatter(-1, index_NK, -torch.inf).logsumexp(-1)
    return {"index": index_NK, "top": top_NK, "rest": rest_N}


def descending(values_NV: Tensor) -> Tensor:
    """[N, V] places of the float32 values from the largest to the smallest, of equal ones the first one first.

    `argsort(stable=True)`, in a quarter of its time on a CPU: there whole numbers are sorted, whose upper half is the
    value's bits, in their order, and whose lower half its place.
    """
    if values_NV.device.type != "cpu":
        return values_NV.argsort(dim=-1, descending=True, stable=True)
    bits_NV = (values_NV.detach() + 0.0).numpy().view(np.int32)  # -0.0 equals 0.0
    ordered_NV = np.where(bits_NV < 0, bits_NV ^ np.int32(2**31 - 1), bits_NV)
    keys_NV = (~ordered_NV).astype(np.int64) << 32 | np.arange(values_NV.shape[-1])
    keys_NV.sort(axis=-1)
    return torch.from_numpy(keys_NV & (2**32 - 1))


def measure_in_chunks(
    head: Callable[[Tensor], Tensor], hidden_ND: Tensor, labels_N: Tensor, vocabulary: int, want: Want
) -> dict[str, Tensor]:
    """`measure_NV` of `head(hidden)` in blocks, so that no more than CHUNK logits stand at once, or READ_CHUNK.

    With gradients each block is recomputed in the backward pass instead of kept.
    """
    most = CHUNK if torch.is_grad_enabled() and hidden_ND.requires_grad else READ_CHUNK
    size = max(1, most // max(1, vocabulary))
    if len(labels_N) <= size:
        return measure_NV(head(hidden_ND), labels_N, want)

    def block(hidden: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return measure_NV(head(hidden), labels, want)

    parts = []
    for hidden, labels in zip(hidden_ND.split(size), labels_N.split(size), strict=True):
        if torch.is_grad_enabled() and hidden.requires_grad:
            parts.append(checkpoint(block, hidden, labels, use_reentrant=False))
        else:
            parts.append(block(hidden, labels))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
