"""How a causal network treats padding, positions and shared prompts, tried on a few random tokens when it is opened.

Families differ in all of it, and a wrong assumption would change figures without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import BadInput
from expunge.models.padding import equal, padded_equals_alone, probe_rows
from expunge.models.shared_prompts import SharedBatch, pack_shared, takes_block_masks
from expunge.models.templates import Encoded
from expunge.models.weights import device_of

TOKENS = (7, 1, 9, 3)
"""Tokens of the random prompt and of its answers in a probe."""
EXACT = 1e-5
"""Largest difference of two outputs, relative to the largest output, of rows that share a prompt."""


def splits_head(model: Any) -> bool:
    """Whether our head gives the family's own logits, on a few tokens. Raises BadInput for weights that are not
    finite."""
    device = device_of(model.module)
    for name, parameter in model.module.named_parameters():
        if not bool(parameter.detach().sum(dtype=torch.float64).isfinite()):
            raise BadInput.of(
                "model",
                model.source,
                f"holds weights that are not finite (NaN or infinity, in {name})",
                "take a checkpoint from before the training diverged",
            )
    ids = torch.arange(4, device=device)[None] % model.vocabulary
    head, body = model.head_and_body()
    with torch.no_grad():
        ours = head(body(input_ids=ids, use_cache=False)[0])
        theirs = model.module(input_ids=ids, use_cache=False).logits
    return ours.shape == theirs.shape and torch.allclose(ours.float(), theirs.float(), atol=1e-3, rtol=1e-3)


def _last_states(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """[B, D] the body's output at each row's last token; the rows are padded together."""
    batch = model.pack([Encoded(list(row), [], False) for row in rows], "prompt")
    inputs = {name: value.to(device_of(model.module)) for name, value in batch.inputs.items()}
    out: Tensor = model.head_and_body()[1](**inputs, use_cache=False)[0][:, -1]
    return out


def _bare_states(model: Any, row: Sequence[int]) -> Tensor:
    """[1, S, D] the body's output for one row, with neither mask nor positions."""
    ids = torch.tensor([list(row)], device=device_of(model.module))
    out: Tensor = model.head_and_body()[1](input_ids=ids, use_cache=False)[0]
    return out


def counts_from_0(model: Any) -> bool:
    """Whether the network counts positions from a row's first token, as we would."""
    row = probe_rows(model.vocabulary, model.limit)[1]
    return equal(_bare_states(model, row)[:, -1], _last_states(model, [row]))


def check_causal(model: Any) -> None:
    """Raises BadInput where a position's output depends on later tokens."""
    row = probe_rows(model.vocabulary, model.limit)[1]
    start = row[: len(row) // 2]
    if not equal(_bare_states(model, row)[:, len(start) - 1], _last_states(model, [start])):
        raise BadInput.of(
            "model",
            type(model.module).__name__,
            "is not a causal language model: its output for a token depends on the tokens behind it",
            "give a causal language model",
        )


def pads(model: Any) -> bool:
    """Whether padding leaves a row's outputs as they are."""
    return padded_equals_alone(lambda rows: _last_states(model, rows), probe_rows(model.vocabulary, model.limit))


def plain_attention(model: Any) -> bool:
    """Whether the network attends as its mask and positions say, and its cache can lose rows.

    What only shows in long rows is read off the configuration; all else, also a network that fails on a block mask or
    ignores it, is tried.
    """
    usable = model.pads and model.counts_from_0 and model.splits_head and takes_block_masks(model.module.config)
    if not usable or model.limit <= max(TOKENS) + TOKENS[0]:
        return False
    draw = torch.Generator().manual_seed(1)
    prompt, *answers = (torch.randint(model.vocabulary, (length,), generator=draw).tolist() for length in TOKENS)
    items = [Encoded(prompt, answer, False) for answer in answers]
    try:
        return _shares_prompts(model, items) and _drops_rows(model, items)
    # A network that does not know these masks or this cache fails in any of these ways, and keeps rows of their own.
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        return False


def _shares_prompts(model: Any, items: Sequence[Encoded]) -> bool:
    """Whether answers in the row of their prompt have the outputs that they have in rows of their own."""
    alone = [_answer_states(model, model.pack([item]))[0] for item in items]
    batch = pack_shared(items, [list(range(len(items)))], model.pad, next(model.module.parameters()).dtype)
    together = _answer_states(model, batch)
    return all(
        equal(together[i, -len(item.answer) :], alone[i][-len(item.answer) :], EXACT) for i, item in enumerate(items)
    )


def _drops_rows(model: Any, items: Sequence[Encoded]) -> bool:
    """Whether a row goes on from the cache as it is alone, once others have left the batch."""
    rows = [item.prompt + item.answer for item in items]
    batch = model.pack([Encoded(row, [], False) for row in rows], "prompt")
    inputs = {name: value.to(device_of(model.module)) for name, value in batch.inputs.items()}
    body = model.head_and_body()[1]
    cache = body(**inputs, use_cache=True).past_key_values
    kept = torch.tensor([len(rows) - 1], device=inputs["input_ids"].device)
    cache.batch_select_indices(kept)
    seen = torch.cat([inputs["attention_mask"][kept], inputs["attention_mask"].new_ones(1, 1)], -1)
    places = inputs["position_ids"][kept, -1:] + 1
    ids = inputs["input_ids"][:1, -1:]
    out = body(input_ids=ids, attention_mask=seen, position_ids=places, past_key_values=cache, use_cache=True)[0]
    return equal(out[:, -1], _last_states(model, [[*rows[-1], int(ids)]]), EXACT)


def _answer_states(model: Any, batch: Any) -> Tensor:
    """[B, T, D] the body's output at the asked positions, right-aligned."""
    inputs = {name: value.to(device_of(model.module)) for name, value in batch.inputs.items()}
    out: Tensor = model.head_and_body()[1](**inputs, use_cache=False)[0]
    if isinstance(batch, SharedBatch):
        return out.flatten(0, 1)[batch.places_BT.to(out.device)]
    return out[:, -batch.labels_BT.shape[1] :]
