"""Counts what a model computes, whoever calls it: hooks on its blocks, which change no value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from expunge.core.compute import Compute
from expunge.core.contracts import Model

_METERED: WeakKeyDictionary[nn.Module, None] = WeakKeyDictionary()
"""Modules that are being counted: an inner run of the same model does not count it twice."""


@contextmanager
def count_passes(model: Model, compute: Compute) -> Iterator[None]:
    """Inside, add the model's forward and backward passes to `compute`; those of its blocks, each an equal part.

    A model without named blocks is one block. A backward pass counts where a gradient reaches the block's output.
    """
    module = getattr(model, "module", None)
    if module is None or module in _METERED:
        yield
        return
    _METERED[module] = None
    blocks = [module.get_submodule(path) for path in model.blocks] or [module]
    handles = [block.register_forward_hook(BlockCounter(compute, 1 / len(blocks))) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        del _METERED[module]


@dataclass
class BlockCounter:
    """A forward hook that adds a block's passes to `compute`, as this share of the network's."""

    compute: Compute
    share: float

    def __call__(self, block: nn.Module, inputs: Any, output: Any) -> None:
        values = _tensor(output)
        if values is None:
            return
        positions = self.share * values.shape[0] * (values.shape[1] if values.dim() == 3 else 1)

        def count_backward(_: Tensor) -> None:
            self.compute.backward += positions

        self.compute.forward += positions
        if values.requires_grad and torch.is_grad_enabled():
            values.register_hook(count_backward)


def _tensor(output: Any) -> Tensor | None:
    """The block's own tensor among what it returns."""
    if isinstance(output, Tensor):
        return output
    values = list(output.values()) if isinstance(output, dict) else output if isinstance(output, list | tuple) else []
    return next((value for value in values if isinstance(value, Tensor) and value.is_floating_point()), None)
