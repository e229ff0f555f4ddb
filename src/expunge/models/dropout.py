"""Two views of a text by dropout, drawn row by row: no row's noise depends on the rows beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LARGE = 2**61 - 1


def dropouts(module: nn.Module) -> list[nn.Module]:
    """The module's dropout layers, whatever their share."""
    return [part for part in module.modules() if isinstance(part, nn.Dropout)]


@contextlib.contextmanager
def row_dropout(module: nn.Module, share: float, seeds: Sequence[int]) -> Iterator[None]:
    """Inside, dropout layers drop `share` of the hidden states [R, S, D] of row r as seeds[r] says, and nothing else.

    The module is in eval mode meanwhile. What a row draws for its first positions does not depend on how many pad it.
    """
    calls = 0

    def drop(_m: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if output.dim() != 3 or len(output) != len(seeds):  # not hidden states: attention, or one row for all
            return output
        keep_RSD = torch.stack([_uniform(output[0].shape, seed, calls) for seed in seeds]) >= share
        return output * keep_RSD.to(output.device) / (1 - share)

    was_training = module.training
    handles = [part.register_forward_hook(drop) for part in dropouts(module)]
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()


def _uniform(shape: torch.Size, seed: int, call: int) -> Tensor:
    draw = torch.Generator().manual_seed((seed * 1_000_003 + call) % LARGE)
    return torch.rand(shape, generator=draw)
