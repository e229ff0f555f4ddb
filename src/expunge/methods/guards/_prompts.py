"""Hidden states of prompts, and outputs that reveal nothing of the answer.

Shape suffixes: B examples, S sequence, T answer positions, L layers, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.card import Example
from expunge.core.contracts import Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.models.guarded import unguarded
from expunge.models.logits import kept
from expunge.models.passes import batches, outputs
from expunge.models.templates import Encoded


def encode(bare: Any, rows: Sequence[Example]) -> list[Encoded]:
    """Encode the examples under the model's own template."""
    return [bare.template.encode(row) for row in rows]


def pooled_NLD(bare: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Mean of each block's output over the prompt's tokens, in float32 on the CPU."""
    means: list[Tensor] = [torch.empty(0)] * len(prompts)

    def whole(part: list[Sequence[int]]) -> Batch:
        """Collate the prompts with every token as a position."""
        inputs = bare.pack([Encoded(list(prompt), [], False) for prompt in part], "prompt").inputs
        seen_BS = inputs["attention_mask"].bool()
        return Batch(inputs, inputs["input_ids"], seen_BS, seen_BS.sum(-1))

    want = Want(frozenset(), tuple(bare.blocks))
    for rows, out in outputs(unguarded(bare), batches(prompts, len, whole), want):
        weight_BS1 = out.mask_BT.float()[..., None]
        count_B1 = weight_BS1.sum(1)
        mean_BLD = torch.stack([(out.hidden[path].float() * weight_BS1).sum(1) / count_B1 for path in bare.blocks], 1)
        for i, mean_LD in zip(rows, mean_BLD.cpu(), strict=True):
            means[i] = mean_LD
    return torch.stack(means) if means else torch.zeros(0, len(bare.blocks), 1)


def silence(out: Output, mask_BT: Tensor, vocabulary: int, want: Want) -> Output:
    """Put the uniform distribution at these positions: an abstention reveals nothing of the answer.

    A label there costs log V nats, and no argmax equals it.
    """
    here_BT = mask_BT & out.mask_BT
    flat = -math.log(vocabulary)
    out.logp_BT = torch.where(here_BT, flat, out.logp_BT)
    out.nll_B = -(out.logp_BT * out.mask_BT).sum(-1)
    if out.argmax_BT is not None:
        out.argmax_BT = torch.where(here_BT, -1, out.argmax_BT)
    if out.mu_BT is not None:
        out.mu_BT = torch.where(here_BT, flat, out.mu_BT)
        out.sigma_BT = torch.where(here_BT, 0.0, out.sigma_BT)
    if out.logits_BTV is not None:
        out.logits_BTV = torch.where(here_BT[..., None], 0.0, out.logits_BTV)
    if out.top_BTK is not None:
        left = vocabulary - kept(vocabulary, want.k)
        out.top_BTK = torch.where(here_BT[..., None], flat, out.top_BTK)
        out.rest_BT = torch.where(here_BT, math.log(left / vocabulary) if left else -math.inf, out.rest_BT)
    return out


def with_logp(want: Want) -> Want:
    """Add the label's log-probability to a want: a guard's change starts there."""
    return want | Want(frozenset({"logp"})) if want.channels else want


def require_prompts(name: str, rows: Sequence[Example]) -> None:
    """Raise BadInput where forget examples are texts without a question to recognise."""
    without = sum("text" in row and "question" not in row for row in rows)
    if without:
        raise BadInput.of(
            "forget",
            "question",
            f"is missing in {without} of {len(rows)} examples, and {name} guards prompts",
            "give questions and answers, or choose another method",
        )
