"""Gradient checkpointing: layers keep their input alone and are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from expunge.core.budget import Budget
from expunge.core.errors import BadInput


def can_recompute(module: Any) -> bool:
    """Whether it is one of transformers' models whose layers can be computed again."""
    return bool(getattr(module, "supports_gradient_checkpointing", False))


def check_recomputation(module: Any, budget: Budget) -> None:
    """Raises BadInput where the budget asks for what the model cannot do."""
    if budget.gradient_checkpointing and not can_recompute(module):
        raise BadInput.of(
            "budget.gradient_checkpointing",
            True,
            f"needs layers that can be computed again, and {type(module).__name__} has none",
            "leave it out, and set budget.micro_batch_size to save memory",
        )


@contextmanager
def recomputation(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Within the block, steps in training mode recompute layers; the gradients are the same."""
    model: Any = module
    if not wanted or not can_recompute(model):
        yield
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()
