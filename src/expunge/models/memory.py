"""Bytes that a step's activations and logits take, estimated from shapes alone."""

from __future__ import annotations

from typing import Any

from expunge.core.contracts import Model


def activation_bytes(model: Model, *, rows: int, length: int, cell: int, checkpointing: bool) -> tuple[float, float]:
    """(activations, logits) of a forward with gradients: by the configuration of a transformer, else as of a small
    convolutional network.

    rows: sequences in a forward; length: tokens of the longest; cell: bytes of a value.
    """
    config = getattr(model.module, "config", None)
    width, tokens = _size(config, "hidden_size"), rows * length
    layers = len(model.blocks)
    if width and checkpointing:
        kept = float(layers * tokens * width * cell) + 34 * tokens * width * cell
    elif width:
        wide = _size(config, "intermediate_size") or 4 * width
        kept = layers * tokens * (12 * width + 4 * wide) * cell
    else:
        kept = 20.0 * rows * max((p.shape[0] for p in model.module.parameters() if p.dim()), default=1) * 64 * 4
    logits = min(3.0 * tokens * _size(config, "vocab_size") * 4, 3.0 * 2**25 * 4)
    return kept, logits


def _size(config: Any, name: str) -> int:
    return int(getattr(config, name, 0) or 0)
