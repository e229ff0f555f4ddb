"""How text is generated: our settings in the place of the folder's, when an answer ends, and how long it may become."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from expunge.models.templates import Encoded, Template

COMMON, SPARE = 200, 8
"""Most new tokens of an answer whose reference is no longer, and how many more than its reference a longer one gets."""
LONGEST = 2048
"""Most new tokens of any answer: text scores leave out the rows whose reference answer is longer."""


def new_tokens(
    encoded: Sequence[Encoded], given: int | None = None, others: Sequence[Encoded] = (), quantile: float = 1.0
) -> list[int]:
    """Most new tokens of each row: `given`, or enough for the longest answer up to COMMON, or for the row's own.

    others: all rows of which these are a process's share, whose answers count in their place. quantile: of the lengths
    of answers, which stands for the longest.
    """
    if given:
        return [int(given)] * len(encoded)
    common = common_limit([len(item.answer) for item in others or encoded], quantile)
    return [max(common, min(LONGEST, len(item.answer) + SPARE)) for item in encoded]


def common_limit(lengths: Sequence[int], quantile: float = 1.0) -> int:
    """Most new tokens of an answer whose reference is no longer. lengths: of the reference answers, in tokens."""
    longest = sorted(lengths)[math.ceil(quantile * len(lengths)) - 1] if lengths else 16
    return min(COMMON, max(16, longest + SPARE))


GENERATED = 2**15
"""Tokens of a generated batch at most."""


def batches(
    encoded: Sequence[Encoded],
    limits: Sequence[int],
    size: int | None = None,
    padded: bool = True,
    tokens: int = GENERATED,
) -> Iterator[list[int]]:
    """Places of the rows that are generated together, by limit and prompt length.

    size: rows of a batch (by default as many as `tokens` hold); rows that may become more than twice as long as a
    batch's first wait for a later batch. padded: prompts of different length may share a batch.
    """
    order = sorted(range(len(encoded)), key=lambda i: (limits[i], len(encoded[i].prompt)))
    widest = max((len(item.prompt) for item in encoded), default=1)
    while order:
        limit = limits[order[0]]
        most = size or max(1, min(512, tokens // (widest + limit)))
        length = len(encoded[order[0]].prompt)
        rows = []
        for i in order[:most]:
            if limits[i] > 2 * limit or not (padded or len(encoded[i].prompt) == length):
                break
            rows.append(i)
        yield rows
        order = order[len(rows) :]


def shared_tokens(rows: Sequence[Encoded], limits: Sequence[int], length: int, given: int | None = None) -> int:
    """New tokens of a batch: its highest limit, less what no longer fits behind its longest prompt.

    length: of the model. A reference answer always fits; a prompt that is too long for it is cut.
    """
    tokens = max(limits)
    room = length - max(len(item.prompt) for item in rows)
    if given or room >= tokens:
        return tokens
    needed = min(tokens, max(len(item.answer) for item in rows))
    return max(1, needed, room)


def end_ids(module: Any, tokenizer: Any, template: Template) -> list[int]:
    """The tokens that end an answer: the end of text of the tokenizer and of both configurations, and the end of a turn
    under the chat template, whatever the folder's settings for generation say."""
    found: set[Any] = set()
    for named in (
        getattr(getattr(module, "generation_config", None), "eos_token_id", None),
        getattr(module.config, "eos_token_id", None),
        tokenizer.eos_token_id,
        template.end_id,
    ):
        found |= set(named) if isinstance(named, list | tuple) else {named}
    size = int(module.get_output_embeddings().weight.shape[0])
    return sorted(token for token in found if isinstance(token, int) and 0 <= token < size)


@contextlib.contextmanager
def own_settings(module: Any, ends: Sequence[int], pad: int, **settings: Any) -> Iterator[Any]:
    """Inside, the module generates under these settings alone.

    Transformers takes what they leave open from the module's own, which are the folder's: penalties, sampling, minimum
    lengths.
    """
    from transformers import GenerationConfig  # heavy, and a plan that generates nothing does without it

    theirs = module.generation_config
    ours = GenerationConfig(eos_token_id=list(ends) or None, pad_token_id=pad, num_beams=1, use_cache=True, **settings)
    module.generation_config = ours
    try:
        yield ours
    finally:
        module.generation_config = theirs


def answer_text(tokenizer: Any, ids: Sequence[int], ends: Sequence[int], end_text: str = "") -> tuple[str, bool]:
    """(plain text of generated ids up to the first that ends an answer, or to the text that does; whether one did)."""
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    text = str(tokenizer.decode(ids[:stop], skip_special_tokens=True))
    answer = text.split(end_text)[0] if end_text else text
    return answer.strip(), stop < len(ids) or answer != text
