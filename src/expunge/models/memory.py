"""Bytes that a step and a reading take beyond the weights, estimated from shapes alone."""

from __future__ import annotations

from typing import Any

from expunge.core.contracts import Model
from expunge.data.batching import TOKENS
from expunge.models.generation import COMMON, GENERATED
from expunge.models.logits import CHUNK, READ_CHUNK

KEPT = 2
"""Arrays of logits at once in a step whose losses take the labels' log-probabilities: those of all tokens, and their
gradient."""
READ = 5
"""Arrays of logits at once in a reading that takes all moments."""
HELD = 2**30
"""Bytes of keys and values that a generated batch holds at most, in float32."""


def activation_bytes(model: Model, *, rows: int, length: int, cell: int, checkpointing: bool) -> tuple[float, float]:
    """(activations, logits) of a forward with gradients: by the configuration of a transformer, else as of a small
    convolutional network.

    rows: sequences in a forward; length: tokens of the longest; cell: bytes of a value. A layer keeps the input and
    the normalised input of both norms (and that times the norm's weight), queries, keys, values, what attention gives
    (twice: its layout changes), and four arrays of the MLP's width. With checkpointing every layer keeps its input
    alone, and one layer is computed again at a time.
    """
    config = getattr(model.module, "config", None)
    width, tokens = _size(config, "hidden_size"), rows * length
    layers = len(model.blocks)
    if width:
        layer = tokens * (10 * width + 2 * _kv_width(config) + 4 * _wide(config)) * cell
        kept = float(layers * tokens * width * cell + layer if checkpointing else layers * layer)
    else:
        kept = 20.0 * rows * max((p.shape[0] for p in model.module.parameters() if p.dim()), default=1) * 64 * 4
    return kept, KEPT * 4.0 * min(tokens * _size(config, "vocab_size"), CHUNK)


def reading_bytes(model: Model, *, rows: int, length: int, share: float = 1.0) -> float:
    """Bytes of a reading of a split, the larger of its forwards and its generation; 0 of what is no transformer.

    rows: examples of the split; length: tokens of the longest; share: of them, those that count. Readings compute in
    float32.
    """
    config = getattr(model.module, "config", None)
    width, vocabulary = _size(config, "hidden_size"), _size(config, "vocab_size")
    if not width:
        return 0.0
    tokens = min(max(TOKENS, length), rows * length)
    forward = 4.0 * tokens * (10 * width + 2 * _kv_width(config) + 4 * _wide(config))
    logits = READ * 4.0 * min(share * tokens * vocabulary, READ_CHUNK)
    held = min(generated_tokens(model), rows * (length + COMMON)) * _held_bytes(model)
    return max(forward, logits, held)


def generated_tokens(model: Model) -> int:
    """Tokens of a generated batch at most: fewer for models that hold much for each."""
    return max(1, min(GENERATED, int(HELD / max(1.0, _held_bytes(model)))))


def _held_bytes(model: Model) -> float:
    """Bytes of a token's keys and values in all layers, in float32."""
    return 8.0 * len(model.blocks) * _kv_width(getattr(model.module, "config", None))


def _wide(config: Any) -> int:
    return _size(config, "intermediate_size") or 4 * _size(config, "hidden_size")


def _kv_width(config: Any) -> int:
    """Width of a layer's keys, and of its values."""
    width, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads") or 1
    each = _size(config, "head_dim") or width // heads
    return (_size(config, "num_key_value_heads") or heads) * each


def _size(config: Any, name: str) -> int:
    return int(getattr(config, name, 0) or 0)
