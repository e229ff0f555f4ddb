"""Keys and values of a decoding in buffers with room for all of it: a step writes its own, and copies no earlier ones.

transformers' cache concatenates them anew at every step. Shapes: L rows, H heads, S tokens so far, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class Buffered(DynamicLayer):
    """A layer's keys and values [L, H, S, D], as views of the filled part of [L, H, room, D]."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; returns all."""
        seen = self.get_seq_length()
        end = seen + key_states.shape[2]
        if not self.buffers:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            return self._hold([key_states, value_states])
        if end > self.buffers[0].shape[2]:
            self.room = 2 * end
            self._hold([buffer[:, :, :seen] for buffer in self.buffers])
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, seen:end] = new
        return self._show(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Drop all rows but these."""
        seen = self.get_seq_length()
        if seen:
            self._hold([buffer[indices, :, :seen] for buffer in self.buffers])

    def _hold(self, filled: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Copy keys and values [L, H, S, D] into new buffers."""
        self.buffers = []
        for part in filled:
            rows, heads, seen, width = part.shape
            buffer = part.new_empty((rows, heads, max(self.room, seen), width))
            buffer[:, :, :seen] = part
            self.buffers.append(buffer)
        return self._show(filled[0].shape[2])

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        """Make the first `end` tokens of the buffers the layer's keys and values."""
        keys, values = (buffer[:, :, :end] for buffer in self.buffers)
        self.keys, self.values = keys, values
        return keys, values


def with_room(config: Any, room: int) -> DynamicCache:
    """A cache for a network of this configuration; layers that attend to all tokens have buffers for `room` of them."""
    cache = DynamicCache(config=config)
    cache.layers = [Buffered(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
