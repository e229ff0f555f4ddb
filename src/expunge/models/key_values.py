"""Keys and values of a decoding in buffers with room for all of it: a step writes its own, and copies no earlier ones.

transformers' cache concatenates them anew at every step. Shapes: L rows, H heads, S tokens so far, D width of a head.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor


class Buffers:
    """The memory of a layer of transformers' cache, whose keys and values [L, H, S, D] are the filled part of it.

    The layer's own `update` and `batch_select_indices` are replaced: its class is not ours to import at a start.
    """

    def __init__(self, layer: Any, room: int) -> None:
        self.layer: Any = weakref.proxy(layer)  # in a circle, memory would wait for the collector
        self.room = room
        self.held: list[Tensor] = []
        layer.update, layer.batch_select_indices = self.update, self.keep

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; returns all."""
        if not self.held:
            self.layer.lazy_initialization(key_states, value_states)
            return self._hold([key_states, value_states])
        seen = self.layer.get_seq_length()
        end = seen + key_states.shape[2]
        if end > self.held[0].shape[2]:
            self.room = 2 * end
            self._hold([buffer[:, :, :seen] for buffer in self.held])
        for buffer, new in zip(self.held, (key_states, value_states), strict=True):
            buffer[:, :, seen:end] = new
        return self._show(end)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        seen = self.layer.get_seq_length()
        if seen:
            self._hold([buffer[rows, :, :seen] for buffer in self.held])

    def _hold(self, filled: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Copy keys and values [L, H, S, D] into new memory."""
        self.held = []
        for part in filled:
            rows, heads, seen, width = part.shape
            buffer = part.new_empty((rows, heads, max(self.room, seen), width))
            buffer[:, :, :seen] = part
            self.held.append(buffer)
        return self._show(filled[0].shape[2])

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        """Make the first `end` tokens the layer's keys and values."""
        keys, values = (buffer[:, :, :end] for buffer in self.held)
        self.layer.keys, self.layer.values = keys, values
        return keys, values


def with_room(config: Any, room: int) -> Any:
    """A cache for a network of this configuration; layers that attend to all tokens have buffers for `room` of them."""
    from transformers import DynamicCache  # which a start does not need
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache(config=config)
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            Buffers(layer, room)
    return cache
