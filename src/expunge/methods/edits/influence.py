"""Influence unlearning: one Newton step away from the forget set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.data.sampling import sample as draw
from expunge.methods._line_search import Put
from expunge.methods._statistics import fisher, gradient, parameters, start_progress, widen
from expunge.methods.edits._edit import edit, mean_entry, write_parameters

CARD = MethodCard(
    "Influence unlearning: one Newton step",
    paper="arXiv:1703.04730",
    equation="1 (removal of a set, H of the retained data)",
    needs={"forget": (), "retain": ()},
    means="Exact for a quadratic loss with the whole H, undamped; deep models are only locally quadratic.",
    deterministic=True,
    one_shot=True,
    fidelity="simplified",
    leaves_out="the exact inverse Hessian: its diagonal, or conjugate gradients",
    shown="ROUGE-L of the forget answers falls to gold's, within .1, with nine tenths of the retain probability kept.",
)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float = 1e-6
) -> Tensor:
    """Solve A x = right, A symmetric and given by its products; stop where the curvature is negative."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), float(residual.dot(residual))
    first = square
    for _ in range(iterations):
        if square <= tolerance**2 * first or square == 0:
            break
        image = product(direction)
        curvature = float(direction.dot(image))
        if curvature <= 0:
            return x if bool(x.any()) else direction
        step = square / curvature
        x = x + step * direction
        residual = residual - step * image
        before, square = square, float(residual.dot(residual))
        direction = residual + square / before * direction
    return x


def influence(
    *,
    solver: Literal["diagonal", "conjugate_gradient"] = "diagonal",
    scale: Annotated[float, Gt(0)] | None = None,
    damping: Annotated[float, Gt(0)] = 0.1,
    iterations: Annotated[int, Ge(1)] = 5,
    sample: Annotated[int, Ge(1)] = 256,
    batch: Annotated[int, Ge(1)] = 1,
) -> Method:
    """Take one Newton step that undoes the forget examples' pull on the weights.

    theta + scale (n_f / n_r) H^-1 grad l_forget, n_r the retained examples that the method is given: at a minimum over
    both their gradient is -(n_f / n_r) that of the forgotten; H is the Hessian of their mean loss. scale: 1 is the
    Newton step (by default found by a line search for the forget-loss target with the retain floor held). solver: H as
    the diagonal of the empirical Fisher information, or whole, by conjugate gradients on its products (differences
    of gradients, so that no second derivative of attention is needed). damping: added to H's diagonal, as a share of
    its mean for `diagonal`, in nats per squared weight for `conjugate_gradient`. iterations: of conjugate gradients;
    each costs two gradient passes over the sample. sample, batch: as for ssd.
    """

    def prepare(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Put:
        forget, retain = list(splits["forget"]), draw(splits["retain"], context.seed, sample)
        pull = context.once("forget", lambda: gradient(model, forget, start_progress(context, "forget", len(forget))))
        if solver == "diagonal":
            step = context.once("direction", lambda: _diagonal(model, retain, pull, damping, batch, context))
        else:
            step = context.once("direction", lambda: _conjugate(model, retain, pull, damping, iterations, context))
        share = len(forget) / len(splits["retain"])

        def change(name: str, weight: Tensor, strength: float) -> Tensor:
            return widen(weight) + strength * share * step[name].cpu()

        return write_parameters(model, change)

    return edit(prepare, scale, start=1e-4 if solver == "diagonal" else 1.0, growth=4.0)


def _diagonal(
    model: Model, retain: Sequence[Example], pull: Mapping[str, Tensor], damping: float, batch: int, context: Context
) -> dict[str, Tensor]:
    """H^-1 pull with H the diagonal of the empirical Fisher information, damped by a share of its mean."""
    diagonal = fisher(model, retain, batch, start_progress(context, "curvature", len(retain)))
    least = damping * max(mean_entry(diagonal), 1e-30)
    return {name: pull[name].cpu() / (f.cpu() + least) for name, f in diagonal.items()}


def _conjugate(
    model: Model,
    retain: Sequence[Example],
    pull: Mapping[str, Tensor],
    damping: float,
    iterations: int,
    context: Context,
) -> dict[str, Tensor]:
    """H^-1 pull by conjugate gradients on products with H of the retain loss."""
    held = parameters(model)
    advance = start_progress(context, "curvature", 2 * iterations * len(retain))
    flat = torch.cat([pull[name].flatten().to(p.device) for name, p in held.items()])
    return _split(conjugate_gradient(_products(model, retain, damping, advance), flat, iterations), held)


def _split(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a flat vector into tensors of these shapes."""
    parts = flat.split([p.numel() for p in like.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(like.items(), parts, strict=True)}


def _products(
    model: Model, rows: Sequence[Example], damping: float, advance: Callable[[int], None]
) -> Callable[[Tensor], Tensor]:
    """The map v -> (H + damping) v, by central differences of the gradient over the rows."""
    held = parameters(model)
    before = {name: p.detach().clone() for name, p in held.items()}
    size = math.sqrt(sum(float(p.detach().double().square().sum()) for p in held.values()))

    def at(v: Tensor, length: float) -> Tensor:
        with torch.no_grad():
            for name, part in _split(v, held).items():
                held[name].copy_((widen(before[name]) + length * part).to(held[name].dtype))
        slope = gradient(model, rows, advance)
        return torch.cat([slope[name].flatten() for name in held])

    def product(v: Tensor) -> Tensor:
        length = 1e-3 * (1 + size) / max(1e-30, float(v.norm()))
        difference = (at(v, length) - at(v, -length)) / (2 * length)
        with torch.no_grad():
            for name, p in held.items():
                p.copy_(before[name])
        return difference + damping * v

    return product
