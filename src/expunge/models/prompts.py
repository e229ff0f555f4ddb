"""Prompts out of a collated batch, and as features that tell them apart.

Shape suffixes: B examples, S sequence, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.contracts import Batch

FEATURES = 2**14
"""Hashed token n-grams (1 to 3): no vocabulary has to be stored."""


def cut_prompt(prompt: list[int], room: int, bos: int | None) -> list[int]:
    """The prompt's last `room` tokens; a BOS that it began with stays its first."""
    if len(prompt) <= room:
        return prompt
    if prompt[0] == bos and room > 1:
        return [prompt[0], *prompt[1 - room :]]
    return prompt[-room:]


def prompt_mask_BS(batch: Batch) -> Tensor:
    """Which input tokens are the prompt's: all that are read but the answer's (its last is never read)."""
    seen_BS = batch.inputs["attention_mask"].bool()
    width = seen_BS.shape[1]
    ends_B = width - (batch.n_B.to(seen_BS.device) - 1).clamp(min=0)
    return seen_BS & (torch.arange(width, device=seen_BS.device) < ends_B[:, None])


def prompts_in(batch: Batch) -> list[list[int]]:
    """Token ids of each row's prompt."""
    mask_BS = prompt_mask_BS(batch)
    return [row[mask].tolist() for row, mask in zip(batch.inputs["input_ids"], mask_BS, strict=True)]


def answers_in(batch: Batch) -> list[list[int]]:
    """Token ids of each row's answer: the labels of the asked positions."""
    return [row[mask].tolist() for row, mask in zip(batch.labels_BT, batch.mask_BT, strict=True)]


def _grams(prompt: Sequence[int]) -> list[str]:
    ids = list(map(str, prompt))
    return [" ".join(ids[i : i + n]) for n in (1, 2, 3) for i in range(len(ids) - n + 1)]


def hash_features(prompts: Sequence[Sequence[int]]) -> Any:
    """[N, FEATURES] sparse, rows of unit length."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(analyzer=_grams, n_features=FEATURES, alternate_sign=False).transform(prompts)
