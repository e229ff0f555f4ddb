"""The backward pass over all micro-batches of a step."""

from expunge.core.contracts import Losses


def backward(losses: Losses, *names: str) -> None:
    """Add the gradients of the named terms' sum (all terms without names) to `.grad`."""
    for micro in losses:
        parts = [loss for loss in micro(*names).values() if loss.requires_grad]
        if parts:
            sum(parts[1:], parts[0]).backward()
