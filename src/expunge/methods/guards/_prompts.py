"""Hidden states of prompts, and answers that say nothing.

Shape suffixes: B examples, S sequence, T asked positions, L layers, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.card import Example
from expunge.core.contracts import Output, Want
from expunge.core.errors import BadInput
from expunge.data.batching import by_length
from expunge.models.logits import kept
from expunge.models.templates import Encoded
from expunge.models.weights import device_of, tapped


def encoded(bare: Any, rows: Sequence[Example]) -> list[Encoded]:
    """The examples' token ids under the model's own template."""
    return [bare.template.encode(row) for row in rows]


@torch.no_grad()
def pooled_NLD(bare: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Each block's output, averaged over the prompt's tokens, in float32 on the CPU."""
    found: list[Tensor] = [torch.empty(0)] * len(prompts)
    device = device_of(bare.module)
    was_training = bare.module.training
    bare.module.eval()
    _, body = bare._parts()
    for part in by_length([len(prompt) for prompt in prompts]):
        batch = bare.pack([Encoded(list(prompts[i]), [], False) for i in part], "prompt")
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        with tapped(bare.module, tuple(bare.blocks), stop=True) as hidden:
            body(**inputs, use_cache=False)
        weight_BS1 = inputs["attention_mask"].float()[..., None]
        count_B1 = weight_BS1.sum(1)
        mean_BLD = torch.stack([(hidden[path].float() * weight_BS1).sum(1) / count_B1 for path in bare.blocks], 1)
        for i, mean_LD in zip(part, mean_BLD.cpu(), strict=True):
            found[i] = mean_LD
    bare.module.train(was_training)
    return torch.stack(found) if found else torch.zeros(0, len(bare.blocks), 1)


def silenced(out: Output, mask_BT: Tensor, vocabulary: int, want: Want) -> Output:
    """The output with the uniform distribution at these positions: what an abstention tells of the answer.

    A label there costs log V nats, and no argmax hits it.
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
    """The want, with the label's log-probability at least: a guard's change starts there."""
    return want | Want(frozenset({"logp"})) if want.channels else want


def needs_prompts(name: str, rows: Sequence[Example]) -> None:
    """Raises BadInput where the forget examples are texts without a question to recognise."""
    without = sum("text" in row and "question" not in row for row in rows)
    if without:
        raise BadInput.of(
            "forget",
            "question",
            f"is missing in {without} of {len(rows)} examples, and {name} guards prompts",
            "give questions and answers, or choose another method",
        )
