"""Keys and values of MLP down-projections, which edits of language models read and write.

A down-projection W [D, M] maps a key (its input) to a value. Shape suffixes: N positions, M keys' width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.contracts import Example, Model, Output, Want
from expunge.core.errors import BadInput
from expunge.data.examples import question_of
from expunge.models.passes import batches, outputs, passes
from expunge.models.templates import Encoded


def weight_DM(model: Model, layer: int) -> Tensor:
    """Block `layer`'s down-projection as [width, keys], a view to edit in place."""
    module: Any = model.module.get_submodule(model.down(layer))
    # GPT-2's Conv1D holds the transpose.
    return module.weight.data.T if type(module).__name__ == "Conv1D" else module.weight.data


def require_field(method: str, rows: Sequence[Example], field: str = "question") -> None:
    """Raise BadInput where an example lacks a field that the method needs."""
    without = sum(not (question_of(row) if field == "question" else row.get(field)) for row in rows)
    if without:
        raise BadInput.of(
            "forget",
            field,
            f"is missing in {without} of {len(rows)} examples, and {method} needs it",
            "add it, or choose another method",
        )


def states(
    model: Model,
    rows: Sequence[Example],
    paths: tuple[str, ...],
    positions: str = "answer",
    advance: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Hidden states [N, width] of each path at the counted positions of all rows, in their order, on the CPU."""
    return _gather(passes(model, rows, Want(frozenset(), paths), positions=positions, progress=advance), paths)


def prompt_states(model: Any, prompts: Sequence[Sequence[int]], path: str) -> Tensor:
    """Hidden states [N, width] of the path at the last token of each prompt, given as token ids."""
    encoded = [Encoded(list(prompt), [], False) for prompt in prompts]
    packed = batches(encoded, lambda item: len(item.prompt), lambda part: model.pack(part, "prompt"))
    return _gather(outputs(model, packed, Want(frozenset(), (path,))), (path,))[0]


def all_prompt_states(model: Any, rows: Sequence[Example], path: str) -> Tensor:
    """Hidden states [N, width] of the path at every token of each row's prompt but its last, template and all."""
    prompts = [model.template.encode(row).prompt for row in rows]
    # Where the second and later tokens are the answer, the counted positions are those that predict them.
    encoded = [Encoded(list(prompt[:1]), list(prompt[1:]), False) for prompt in prompts if len(prompt) > 1]
    packed = batches(encoded, lambda item: len(item.answer), model.pack)
    return _gather(outputs(model, packed, Want(frozenset(), (path,))), (path,))[0]


def _gather(passed: Iterable[tuple[list[int], Output]], paths: tuple[str, ...]) -> list[Tensor]:
    """Concatenate each path's hidden states at the counted positions, in the order of the rows."""
    parts: dict[int, list[Tensor]] = {}
    for rows, out in passed:
        seen_BT = out.mask_BT
        for b, i in enumerate(rows):
            parts[i] = [out.hidden[path][b][seen_BT[b]].float().cpu() for path in paths]
    return [torch.cat([parts[i][k] for i in range(len(parts))]) for k in range(len(paths))]


def second_moment(key_NM: Tensor) -> Tensor:
    """Second moment E[k kᵀ] over the positions, in float64."""
    keys = key_NM.double()
    return keys.T @ keys / len(keys)


def prompt_and_answer_moment(
    model: Model, rows: Sequence[Example], path: str, advance: Callable[[int], None]
) -> Tensor:
    """Second moment of the keys that an edit of prompts should preserve.

    Prompts' last tokens, where one wrong token turns the whole answer, and answers have half of the weight each.
    """
    (prompt_NM,) = states(model, rows, (path,), "prompt")
    (answer_NM,) = states(model, rows, (path,), "answer", advance)
    return (second_moment(prompt_NM) + second_moment(answer_NM)) / 2
