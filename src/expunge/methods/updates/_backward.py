"""The backward pass over all micro-batches of a step."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from expunge.core.contracts import Losses


def backward(losses: Losses, *names: str) -> None:
    """Add the gradients of the named terms' sum (all terms without names) to `.grad`."""
    for micro in losses:
        parts = [loss for loss in micro(*names).values() if loss.requires_grad]
        if parts:
            sum(parts[1:], parts[0]).backward()


def gradients_of(losses: Losses, name: str, parameters: Sequence[nn.Parameter]) -> list[Any]:
    """The gradient of a term by each parameter, None where it has none; `.grad` is empty again afterwards."""
    backward(losses, name)
    losses.reduce_gradients(parameters)
    found = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return found
