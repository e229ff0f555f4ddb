"""Batches that do not change figures: whether a network's outputs depend on the padding around a row.

Most families read the attention mask and give a row the same outputs in any batch. Some do not (recurrent ones that
run through padding, learnt positions that count it): their rows are run in groups of equal length, without padding.
Shape suffixes: B rows, S padded length, L length of a group's rows, T positions kept at the end, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import BadInput

CLOSE = 1e-4
"""Largest difference of two outputs, relative to the largest output, that is rounding in float32."""
SHORT, LONG = 5, 23
"""Tokens of the two random rows of a probe."""


def equal(first: Tensor, second: Tensor, close: float = CLOSE) -> bool:
    """Whether two outputs differ by rounding alone. close: the share that is rounding in float32."""
    share = max(close, 16 * torch.finfo(first.dtype).eps)
    largest = torch.maximum(first.abs().max(), second.abs().max()).float()
    return bool((first.float() - second.float()).abs().max() <= share * largest)


def probe_rows(vocabulary: int, limit: int) -> list[list[int]]:
    """Two rows of random tokens, a short one and a long one."""
    draw = torch.Generator().manual_seed(0)
    lengths = (min(SHORT, max(1, limit - 2)), max(1, min(LONG, limit - 1)))
    return [torch.randint(vocabulary, (length,), generator=draw).tolist() for length in lengths]


def attend_in_padding(blocks: Sequence[nn.Module]) -> None:
    """Let positions that may attend to nothing, which are padding, attend to everything, where CUDA trains.

    Nothing reads what they compute. But fused attention on CUDA may give NaN as the gradient of a position without any
    key (pytorch issue 110213), which a sum over all positions carries into every weight.
    """
    for block in blocks:
        block.register_forward_pre_hook(open_mask, with_kwargs=True)


def open_mask(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """The hook of `attend_in_padding`, which leaves all counted values as they are."""
    mask = named.get("attention_mask")
    if not (isinstance(mask, Tensor) and mask.is_cuda and torch.is_grad_enabled()):
        return None
    return inputs, {**named, "attention_mask": open_rows(mask)}


def open_rows(mask_BHSS: Tensor) -> Tensor:
    """The mask with rows that allow no key allowing all; others, and a mask of numbers, as they are."""
    return mask_BHSS | ~mask_BHSS.any(-1, keepdim=True) if mask_BHSS.dtype == torch.bool else mask_BHSS


def by_equal_length(seen_BS: Tensor) -> Iterator[Tensor]:
    """Indices of a batch's rows, those of one length at a time."""
    lengths_B = seen_BS.sum(-1)
    for length in lengths_B.unique(sorted=True):
        yield (lengths_B == length).nonzero()[:, 0]


def without_padding(inputs: Mapping[str, Tensor], rows_G: Tensor) -> dict[str, Tensor]:
    """The inputs of rows of one length, their padding cut away on whichever side it is."""
    mask_GS = inputs["attention_mask"][rows_G].bool()
    length = int(mask_GS[0].sum())
    found = {}
    for name, value in inputs.items():
        part = value[rows_G]
        by_token = part.shape[:2] == mask_GS.shape
        found[name] = part[mask_GS].view(len(rows_G), length, *part.shape[2:]) if by_token else part
    return found


def ends(value_GLD: Tensor, steps: int) -> Tensor:
    """The last positions [G, T, D] of left-padded rows, with zeros before rows that are shorter than T."""
    last = value_GLD[:, -steps:]
    if last.shape[1] == steps:
        return last
    return torch.cat([last.new_zeros(len(last), steps - last.shape[1], *last.shape[2:]), last], 1)


Run = Callable[[dict[str, Tensor]], tuple[Tensor | None, dict[str, Tensor]]]
"""From inputs to the last positions [B, T, D] of a body's output and of its hidden states by path."""


def in_groups(module: nn.Module, run: Run, inputs: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
    """`run` on groups of rows of equal length, its outputs back in the rows' order.

    Raises BadInput while hooks change the module's hidden states: they are laid out for the batch as it was.
    """
    if any(part._forward_hooks for part in module.modules()):
        raise BadInput.of(
            "model",
            type(module).__name__,
            "runs without padding, since padding changes its outputs, and what is added to its hidden states needs it",
            "choose a method, guards and attacks that leave hidden states alone",
        )
    groups = list(by_equal_length(inputs["attention_mask"]))
    found = [run(without_padding(inputs, rows_G)) for rows_G in groups]
    order = torch.cat(groups).argsort()
    main = [out for out, _ in found if out is not None]
    states = {path: torch.cat([hidden[path] for _, hidden in found])[order] for path in found[0][1]}
    return (torch.cat(main)[order] if main else None), states


def padded_equals_alone(outputs: Callable[[Sequence[Any]], Tensor], rows: Sequence[Any]) -> bool:
    """Whether a short and a long row have the same outputs together and alone.

    outputs: from rows to [B, ...], each row's output at its last position.
    """
    together = outputs(rows)
    return all(equal(together[i], outputs([row])[0]) for i, row in enumerate(rows))
