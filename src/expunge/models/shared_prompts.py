"""One row per prompt in reading: the prompt once, and its answers behind it, each blind to the others.

A block mask lets an answer see the prompt and itself alone, and its positions go on from the prompt's end, as in a row
of its own: the same values up to rounding, for fewer tokens.
Shape suffixes: G shared rows, S their padded length, B answers, T asked positions (right-aligned), D width, N counted
positions, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.card import Example
from expunge.core.contracts import NLL, Batch, Model, Output, Want
from expunge.data.batching import TOKENS, by_length
from expunge.models.logits import fields, measure_in_chunks, spread
from expunge.models.metering import BlockCounter
from expunge.models.padding import open_mask
from expunge.models.passes import outputs, passes
from expunge.models.templates import Encoded

ATTENTION = ("eager", "sdpa")
"""Implementations of attention that add a mask [G, 1, S, S] to their scores."""
LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that are one kind in rows shorter than their window."""
WINDOW = re.compile(r"window(?!_layers)|attention_chunk")
"""Names of settings that hold how far back a layer attends (`sliding_window`, `window_size`, ...)."""
WORK = 6
"""Work of a token in a layer over that of a pair of positions in attention, per unit of width: about 24 D^2 and 4 D
FLOPs."""


@dataclass
class SharedBatch(Batch):
    """Labels, mask and counts per answer, `inputs` per shared row.

    places_BT: where each asked position is predicted, in the flattened [G x S]. brief_B: of these answers `nll` and
    `logp` alone are read, whatever else is wanted.
    """

    places_BT: Tensor
    brief_B: Tensor


def takes_block_masks(config: Any) -> bool:
    """Whether each layer attends to all earlier positions of a row of TOKENS, by an implementation that takes any
    mask."""
    settings = config.get_text_config().to_dict()
    kinds = set(settings.get("layer_types") or [])
    windows = [value for name, value in settings.items() if WINDOW.search(name) and type(value) is int]
    attention = getattr(config, "_attn_implementation", None)
    return attention in ATTENTION and kinds <= LAYERS and not any(0 < size < TOKENS for size in windows)


def groups_of(items: Sequence[Encoded], width: int) -> list[list[int]]:
    """Places of the answers that share a row, two or more in each.

    Answers to one prompt do, up to TOKENS tokens in all, while the prompt's tokens that are saved are more work than
    attention over a longer row. width: of the network's hidden states.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for i, item in enumerate(items):
        by_prompt.setdefault(tuple(item.prompt), []).append(i)
    found: list[list[int]] = []
    group: list[int]
    for prompt, places in by_prompt.items():
        first, length, group = len(prompt), 0, []
        for i in places:
            more = len(items[i].answer) - 1
            pairs = 2 * more * (length - first) - first**2
            if not group or length + more > TOKENS or pairs > WORK * width * first:
                length, group = first, []
                found.append(group)
            group.append(i)
            length += more
    return [group for group in found if len(group) > 1]


def pack_shared(
    items: Sequence[Encoded], groups: Sequence[Sequence[int]], pad: int, dtype: torch.dtype, brief: Collection[int] = ()
) -> SharedBatch:
    """A batch of the groups' answers, in the groups' order. brief: places of answers of which little is wanted."""
    order = [i for group in groups for i in group]
    rows = [_row(items, group) for group in groups]
    width, steps = max(len(row.ids) for row in rows), max(len(items[i].answer) for i in order)
    ids_GS = torch.full((len(rows), width), pad)
    positions_GS = torch.zeros((len(rows), width), dtype=torch.long)
    answers_GS = torch.full((len(rows), width), -1)
    labels_BT = torch.zeros((len(order), steps), dtype=torch.long)
    places_BT = torch.zeros((len(order), steps), dtype=torch.long)
    mask_BT = torch.zeros((len(order), steps), dtype=torch.bool)
    b = 0
    for g, (row, group) in enumerate(zip(rows, groups, strict=True)):
        size = len(row.ids)
        ids_GS[g, :size], positions_GS[g, :size] = torch.tensor(row.ids), torch.tensor(row.positions)
        answers_GS[g, :size] = torch.tensor(row.answers)
        for i, places in zip(group, row.places, strict=True):
            counted = slice(steps - len(places), steps)
            labels_BT[b, counted] = torch.tensor(items[i].answer)
            places_BT[b, counted] = g * width + torch.tensor(places)
            mask_BT[b, counted] = True
            b += 1
    inputs = {"input_ids": ids_GS, "position_ids": positions_GS, "attention_mask": _block_mask(answers_GS, dtype)}
    brief_B = torch.tensor([i in brief for i in order], dtype=torch.bool)
    return SharedBatch(inputs, labels_BT, mask_BT, mask_BT.sum(-1), places_BT, brief_B)


@dataclass
class _Row:
    """A shared row. answers: 0 for the prompt's tokens, then the number of the answer that each token is of; places:
    per answer, where its tokens are predicted."""

    ids: list[int]
    positions: list[int]
    answers: list[int]
    places: list[list[int]]


def _row(items: Sequence[Encoded], group: Sequence[int]) -> _Row:
    prompt = items[group[0]].prompt
    first = len(prompt)
    row = _Row(list(prompt), list(range(first)), [0] * first, [])
    for number, i in enumerate(group, 1):
        read = items[i].answer[:-1]  # the last token is predicted, never read
        start = len(row.ids)
        row.places.append([first - 1, *range(start, start + len(read))])
        row.ids += read
        row.positions += range(first, first + len(read))
        row.answers += [number] * len(read)
    return row


def _block_mask(answers_GS: Tensor, dtype: torch.dtype) -> Tensor:
    """[G, 1, S, S] what is added to attention's scores: nothing where a position sees another, else the lowest number,
    whose share is exactly 0. answers_GS: as of `_Row`, -1 for padding."""
    query_GS1, key_G1S = answers_GS[:, :, None], answers_GS[:, None]
    sees_GSS = ((key_G1S == 0) | (key_G1S == query_GS1)).tril()
    mask_GSS = torch.zeros(sees_GSS.shape, dtype=dtype).masked_fill(~sees_GSS, torch.finfo(dtype).min)
    return mask_GSS[:, None]


def shared_output(
    batch: SharedBatch, head: Callable[[Tensor], Tensor], hidden_GSD: Tensor, vocabulary: int, want: Want
) -> Output:
    """The Output of each answer, as if it had a row of its own; no hidden states."""
    device = hidden_GSD.device
    labels_BT, mask_BT, places_BT = (x.to(device) for x in (batch.labels_BT, batch.mask_BT, batch.places_BT))
    hidden_ND = hidden_GSD.flatten(0, 1)
    found: dict[str, Tensor] = {}
    for wanted, rows_B in ((want, ~batch.brief_B), (NLL, batch.brief_B)):
        if not bool(rows_B.any()):
            continue
        part_BT = mask_BT & rows_B.to(device)[:, None]
        values = measure_in_chunks(head, hidden_ND[places_BT[part_BT]], labels_BT[part_BT], vocabulary, wanted)
        for name, value in values.items():
            placed = spread(value, part_BT)
            found[name] = found[name] + placed if name in found else placed
    n_B = batch.n_B.to(device)
    return Output(-found["logp"].sum(-1), n_B, labels_BT, mask_BT, **fields(found))


def shared_passes(
    model: Model, rows: Sequence[Example], want: Want = NLL, brief: Collection[int] = ()
) -> Iterator[tuple[list[int], Output]]:
    """`passes` over rows of which some have one prompt, which the model reads once where it can.

    brief: places of rows of which `nll` and `logp` are enough. Not in length order.
    """
    items: Sequence[Encoded] = []
    groups: list[list[int]] = []
    if has_plain_attention(model) and not want.hidden and want.channels:
        items = model.encode(rows)  # type: ignore[attr-defined]
        groups = groups_of(items, int(model.module.get_input_embeddings().weight.shape[1]))  # type: ignore[operator]
    shared = {i for group in groups for i in group}
    for wanted, places in ((want, set(range(len(rows))) - set(brief)), (NLL, set(brief))):
        alone = sorted(places - shared)
        for part, out in passes(model, [rows[i] for i in alone], wanted):
            yield [alone[i] for i in part], out
    yield from outputs(model, _batches(model, items, groups, brief), want)


def has_plain_attention(model: Any) -> bool:
    """Whether the network attends to tokens as its mask and positions say, as it was tried when it was opened, and
    nothing hooks into it that needs rows as they come."""
    if not getattr(model, "plain_attention", False):
        return False
    parts = list(model.module.modules())
    hooks = [hook for part in parts for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())]
    return all(hook is open_mask or isinstance(hook, BlockCounter) for hook in hooks)


def _batches(
    model: Any, items: Sequence[Encoded], groups: Sequence[list[int]], brief: Collection[int]
) -> Iterator[tuple[list[int], Batch]]:
    lengths = [len(items[group[0]].prompt) + sum(len(items[i].answer) - 1 for i in group) for group in groups]
    dtype = next(model.module.parameters()).dtype if groups else torch.float32
    for places in by_length(lengths):
        chosen = [groups[g] for g in places]
        batch = pack_shared(items, chosen, model.pad, dtype, brief)
        model.check_known(batch.inputs["input_ids"], batch.labels_BT)
        yield [i for group in chosen for i in group], batch
