"""A batch of prompts continued a token at a time; rows that are done leave it.

transformers' own `generate` computes every row until the last one is done. This loop is for networks of plain
attention, whose cache can lose rows; the texts are the same.
Shape suffixes: B prompts, L rows that go on, S tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.models.key_values import with_room
from expunge.models.weights import device_of

DROPPED = 8
"""The batch is cut when one in so many of its rows is done: cutting copies the cache once."""


def _next(logits_LV: Tensor, rows_L: Tensor, count: int, temperature: float) -> Tensor:
    """The likeliest token of each row, or draws from the whole distribution by torch's global generator.

    Each step draws for all `count` rows of the batch, so that a row's draws do not depend on when others end.
    """
    if not temperature:
        return logits_LV.argmax(-1)
    share_BV = logits_LV.new_ones(count, logits_LV.shape[-1])
    share_BV[rows_L] = (logits_LV / temperature).softmax(-1)
    return share_BV.multinomial(1)[rows_L, 0]


def _logits(model: Any, head: Any, hidden_LD: Tensor) -> Tensor:
    """[L, V] logits of the last positions, in the weights' own precision under autocast too.

    Rounded to bfloat16 the likeliest tokens tie, and a tie goes to the lowest id, which often ends the answer.
    """
    if not torch.is_autocast_enabled(hidden_LD.device.type):
        return head(hidden_LD).float()
    with torch.autocast(hidden_LD.device.type, enabled=False):
        return head(hidden_LD.to(model.module.get_output_embeddings().weight.dtype)).float()


@torch.no_grad()
def decode(
    model: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], ends: Sequence[int], temperature: float = 0.0
) -> list[list[int]]:
    """The new token ids of each prompt, with the one that ends its answer, or as many as its limit.

    Greedy without a temperature. With one, all rows have the highest limit: the draws of a later batch follow.
    """
    if temperature:
        limits = [max(limits)] * len(limits)
    head, body = model.head_and_body()
    device, width = device_of(model.module), max(map(len, prompts))
    ids = torch.tensor([[model.pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    seen_LS = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    positions = (seen_LS.cumsum(-1) - 1).clamp(min=0)
    rows_L = torch.arange(len(prompts), device=device)
    found: list[list[int]] = [[] for _ in prompts]
    done, cache = [False] * len(prompts), with_room(model.module.config, width + max(limits))
    while not all(done):
        out = body(input_ids=ids, attention_mask=seen_LS, position_ids=positions, past_key_values=cache, use_cache=True)
        next_L = _next(_logits(model, head, out[0][:, -1]), rows_L, len(prompts), temperature)
        for row, token in zip(rows_L.tolist(), next_L.tolist(), strict=True):
            if not done[row]:
                found[row].append(token)
                done[row] = token in ends or len(found[row]) == limits[row]
        going = [i for i, row in enumerate(rows_L.tolist()) if not done[row]]
        if len(rows_L) - len(going) >= max(1, len(rows_L) // DROPPED):
            keep = torch.tensor(going, dtype=torch.long, device=device)
            cache.batch_select_indices(keep)
            rows_L, next_L, seen_LS, positions = rows_L[keep], next_L[keep], seen_LS[keep], positions[keep]
        ids, positions = next_L[:, None], positions[:, -1:] + 1
        seen_LS = torch.cat([seen_LS, seen_LS.new_ones(len(seen_LS), 1)], -1)
    return found
