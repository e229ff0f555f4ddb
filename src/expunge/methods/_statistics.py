"""Statistics of a model before a change, for edits and masks: gradients and Fisher diagonals by parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Model, Output
from expunge.models.passes import passes

ROWS = 32
"""Examples per forward where only the sum of their gradients is needed."""


def start_progress(context: Context, name: str, total: int) -> Callable[[int], None]:
    """Report a pass over `total` examples under the context's stage; call the result with how many more are done."""
    stage, done = f"{context.label}/{name}", [0]
    context.reporter.start(stage, total)

    def advance(count: int) -> None:
        done[0] += count
        context.reporter.advance(stage, done[0])
        if done[0] >= total:
            context.reporter.finish(stage)

    return advance


def parameters(model: Model) -> dict[str, Tensor]:
    """Every parameter once, by name (tied ones under their first)."""
    return dict(model.module.named_parameters())


def _trainable(model: Model) -> dict[str, Tensor]:
    return {name: p for name, p in parameters(model).items() if p.requires_grad}


def widen(x: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _gradients(model: Model, out: Output) -> dict[str, Tensor]:
    """Gradient of the sum over the examples of the mean NLL per position."""
    held = _trainable(model)
    gradients = torch.autograd.grad((out.nll_B / out.n_B.clamp(min=1)).sum(), list(held.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(held.items(), gradients, strict=True)}


def _mean_power(
    model: Model, rows: Sequence[Example], size: int, advance: Callable[[int], None] | None, power: int
) -> dict[str, Tensor]:
    """Mean over the examples of the gradient, or of its square (`power` 2), `size` examples at a time."""
    total = {name: widen(torch.zeros_like(p)) for name, p in _trainable(model).items()}
    for part, out in passes(model, rows, size=size, gradients=True, progress=advance):
        for name, gradient in _gradients(model, out).items():
            # The mean gradient of b independent examples has a b-th of one example's variance.
            total[name] += widen(gradient) if power == 1 else widen(gradient).square() / len(part)
    scale = len(rows)
    return {name: value.div_(scale) for name, value in total.items()}


def gradient(model: Model, rows: Sequence[Example], advance: Callable[[int], None] | None = None) -> dict[str, Tensor]:
    """Mean over the examples of the gradient of their mean NLL per position, by parameter that requires one."""
    return _mean_power(model, rows, ROWS, advance, 1)


def fisher(
    model: Model, rows: Sequence[Example], batch: int = 1, advance: Callable[[int], None] | None = None
) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information: the mean over the examples of the squared gradient.

    batch: examples whose summed gradient is squared together, which is as many times faster; exact for 1, and in
    expectation where the gradients average to zero.
    """
    return _mean_power(model, rows, batch, advance, 2)
