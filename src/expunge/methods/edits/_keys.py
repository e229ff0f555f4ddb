"""Keys and values of MLP down-projections: what edits of language models read and write.

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


def asked(method: str, rows: Sequence[Example], field: str = "question") -> None:
    """Raises BadInput where an example lacks what the method needs of it."""
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
    """[N, width] of each path at the counted positions of all rows, in the rows' order, on the CPU."""
    return _gathered(passes(model, rows, Want(frozenset(), paths), positions=positions, progress=advance), paths)


def prompt_states(model: Any, prompts: Sequence[Sequence[int]], path: str) -> Tensor:
    """[N, width] of the path at the last token of each prompt, given as token ids."""
    encoded = [Encoded(list(prompt), [], False) for prompt in prompts]
    made = batches(encoded, lambda item: len(item.prompt), lambda part: model.pack(part, "prompt"))
    return _gathered(outputs(model, made, Want(frozenset(), (path,))), (path,))[0]


def _gathered(found: Iterable[tuple[list[int], Output]], paths: tuple[str, ...]) -> list[Tensor]:
    parts: dict[int, list[Tensor]] = {}
    for rows, out in found:
        seen_BT = out.mask_BT
        for b, i in enumerate(rows):
            parts[i] = [out.hidden[path][b][seen_BT[b]].float().cpu() for path in paths]
    return [torch.cat([parts[i][k] for i in range(len(parts))]) for k in range(len(paths))]


def second_moment(key_NM: Tensor) -> Tensor:
    """E[k kᵀ] over the positions, in float64."""
    keys = key_NM.double()
    return keys.T @ keys / len(keys)


def spared(model: Model, rows: Sequence[Example], path: str, advance: Callable[[int], None]) -> Tensor:
    """Second moment of the keys that an edit of prompts should spare: half of the weight is the prompts' last
    tokens', where one wrong token turns the whole answer, half the answers'."""
    both = [
        states(model, rows, (path,), where, advance if where == "answer" else None)[0] for where in ("prompt", "answer")
    ]
    return (second_moment(both[0]) + second_moment(both[1])) / 2


def redirect(
    key_NM: Tensor,
    change_ND: Tensor,
    moment_MM: Tensor | None,
    preserve: float,
    ridge: float = 1e-3,
    rank: int | None = None,
) -> Tensor:
    """The change of W that moves the keys' values by `change` and other keys' values little, [D, M].

    Minimises mean |Δk - change|² + preserve E|Δk'|², the second mean over keys k' with the second moment given
    (none, or preserve 0: the pseudo-inverse, Δ = change K⁺). ridge: added to the matrix to be inverted, as a
    share of its mean diagonal. rank: Δ reads keys in the span of their r leading directions only, which inverts
    an r by r matrix.
    """
    key, change = key_NM.double(), change_ND.double()
    basis_Mr = None
    if rank is not None and rank < min(key.shape):
        basis_Mr = torch.linalg.svd(key, full_matrices=False).Vh[:rank].T
        key = key @ basis_Mr
    if moment_MM is None or preserve == 0:
        delta = (torch.linalg.pinv(key) @ change).T
    else:
        moment = moment_MM if basis_Mr is None else basis_Mr.T @ moment_MM @ basis_Mr
        matrix = key.T @ key / len(key) + preserve * moment
        matrix = matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
        delta = torch.linalg.solve(matrix, key.T @ change / len(key)).T
    return delta if basis_Mr is None else delta @ basis_Mr.T
