"""Rough times of a step and of a checkpoint, from shapes alone: nothing is decided by the clock."""

from __future__ import annotations

import math

FLOPS = {"cuda": 1.5e14, "cpu": 6e10, "mps": 3e12}
"""Rough floating-point operations per second."""
WRITING = 4e8
"""Rough bytes of a checkpoint that are written per second."""
SAVING = 0.05
"""Share of the training time that checkpoints may take."""


def checkpoint_every(moving: int, parameters: int, tokens: float, examples: int, device: str) -> int:
    """Steps from one checkpoint to the next, so that saving takes at most SAVING of the training.

    moving: trainable parameters, whose weights and two moments are saved in float32; tokens and examples: of a step.
    Examples of one position (images) say nothing about the work that they make: 1, and epochs alone count.
    """
    if tokens <= examples or not parameters:
        return 1
    passes = 6 if moving == parameters else 4
    step = passes * parameters * tokens / FLOPS.get(device, FLOPS["cpu"])
    return math.ceil(12 * moving / WRITING / (SAVING * step))
