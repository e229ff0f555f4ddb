"""What a run will need: bytes at the peak and seconds, estimated from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from expunge.core import processes, registry
from expunge.core.contracts import Model

GB = 1e9


def size(count: float) -> str:
    """Bytes in words: GB with a decimal, or MB where it is less than a tenth of a GB."""
    return f"{count / GB:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


FLOPS = {"cuda": 1.5e14, "cpu": 6e10, "mps": 3e12}
"""Rough floating-point rates a second, for the estimate of time alone (nothing is decided by it)."""


@dataclass(frozen=True)
class Estimate:
    """Bytes by kind, and a guess of seconds."""

    weights: float
    gradients: float
    moments: float
    activations: float
    logits: float
    seconds: float
    trainable: int
    parameters: int
    available: float

    @property
    def peak(self) -> float:
        """Bytes at the peak of a step, with a tenth on top for what shapes do not show."""
        return 1.1 * (self.weights + self.gradients + self.moments + self.activations + self.logits)

    @property
    def sentence(self) -> str:
        parts = (
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("Adam moments", self.moments),
            ("activations", self.activations),
            ("logits", self.logits),
        )
        return ", ".join(f"{name} {size(value)}" for name, value in parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "peak_memory_bytes": round(self.peak),
            "available_bytes": round(self.available),
            "seconds": round(self.seconds, 1),
            "moving_parameters": self.trainable,
            "parameters": self.parameters,
            "parts": self.sentence,
        }


def trainable_parameters(model: Model, weights: str, options: Mapping[str, Any]) -> tuple[int, int]:
    """(moving parameters, of them beside the base): LoRA's lie beside the base, others within.

    A mask's parameters all count, since their gradients and moments are held whole.
    """
    module = model.module
    if weights == "layers":  # which these are hangs on no data
        names = registry.load("weights", weights).factory(**options)(model, {}, None).parameters
        return sum(p.numel() for name, p in module.named_parameters() if name in names), 0
    if weights != "lora":
        return sum(p.numel() for p in module.parameters()), 0
    rank = int(options.get("rank", 16))
    head: Any = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    extra = sum(
        rank * (m.in_features + m.out_features)
        for m in module.modules()
        if isinstance(m, torch.nn.Linear) and m is not head
    )
    return extra, extra


def estimate(
    model: Model,
    *,
    weights: str,
    options: Mapping[str, Any],
    rows: int,
    length: int,
    steps: int,
    tokens_a_step: float,
    checkpointing: bool,
    bf16: bool,
    elsewhere: bool = False,
) -> Estimate:
    """rows: sequences in a forward; length: tokens of the longest.

    elsewhere: the limit is another machine's; it is taken for an accelerator where the file's weights
    are of half precision. A CPU holds them in float32, whatever the file has.
    """
    module = model.module
    device = processes.device().type
    total = sum(p.numel() for p in module.parameters())
    halves = all(p.element_size() < 4 for p in module.parameters())
    accelerator = device == "cuda" or (elsewhere and halves)
    low = bf16 or accelerator
    # What is frozen stays in the dtype of the file (float32 on a CPU); what moves is float32, with its gradient and
    # two moments.
    frozen = float(sum(p.numel() * (p.element_size() if accelerator else 4) for p in module.parameters()))
    trainable, beside = trainable_parameters(model, weights, options)
    held = frozen + 4.0 * beside if beside else 4.0 * trainable + frozen * (total - trainable) / total
    config = getattr(module, "config", None)
    width = int(getattr(config, "hidden_size", 0) or 0)
    layers = len(model.blocks)
    cell = 2 if low else 4
    tokens = rows * length
    if width and checkpointing:
        kept = float(layers * tokens * width * cell) + 34 * tokens * width * cell
    elif width:
        wide = int(getattr(config, "intermediate_size", 0) or 4 * width)
        kept = layers * tokens * (12 * width + 4 * wide) * cell
    else:
        kept = 20.0 * rows * max((p.shape[0] for p in module.parameters() if p.dim()), default=1) * 64 * 4
    vocabulary = int(getattr(config, "vocab_size", 0) or 0)
    logits = min(3.0 * tokens * vocabulary * 4, 3.0 * 2**25 * 4)
    passes = 6 if not beside else 4
    flops = steps * tokens_a_step * (passes + (2 if checkpointing else 0)) * total
    available = (
        torch.cuda.get_device_properties(0).total_memory if device == "cuda" else psutil.virtual_memory().available
    )
    return Estimate(
        held,
        4.0 * trainable,
        8.0 * trainable,
        kept,
        logits,
        flops / FLOPS.get(device, 6e10),
        trainable,
        total,
        float(available),
    )
