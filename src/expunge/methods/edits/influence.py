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
from expunge.data.sampling import sample as drawn
from expunge.methods._statistics import counted, fisher, gradient, parameters
from expunge.methods.edits._strength import fitted
from expunge.models.weights import fold

CARD = MethodCard(
    "Influence unlearning: one Newton step",
    paper="arXiv:1703.04730",
    equation="1 (removal of a set, H of the retained data)",
    needs={"forget": (), "retain": ()},
    means="Exact for one Newton step of a quadratic loss; deep models are only locally quadratic.",
)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float = 1e-6
) -> Tensor:
    """x with A x = right, A symmetric and given by its products; stops where it meets negative curvature."""
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

    theta + scale (n_f / n) H^-1 grad l_forget, n all examples, n_f the forgotten, H of the retained data. scale: 1
    is the Newton step (by default what reaches the forget level with the budget's floor held). solver: H as the
    diagonal of the empirical Fisher information, or whole, by conjugate gradients on its products (differences
    of gradients, so that no second derivative of attention is needed). damping: added to H's diagonal, as a share
    of its mean for `diagonal`, in nats a squared weight for `conjugate_gradient`. iterations: of conjugate
    gradients; each costs two gradient passes over the sample. sample, batch: as for ssd.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        forget, retain = list(splits["forget"]), drawn(splits["retain"], context.seed, sample)
        held = parameters(model)
        before = {name: p.detach().cpu().clone() for name, p in held.items()}
        pull = context.once("forget", lambda: gradient(model, forget, counted(context, "forget", len(forget))))

        def direction() -> dict[str, Tensor]:
            if solver == "diagonal":
                found = fisher(model, retain, batch, counted(context, "curvature", len(retain)))
                mean = sum(float(f.double().sum()) for f in found.values()) / sum(f.numel() for f in found.values())
                return {name: pull[name].cpu() / (f.cpu() + damping * max(mean, 1e-30)) for name, f in found.items()}
            advance = counted(context, "curvature", 2 * iterations * len(retain))
            product = _products(model, retain, damping, advance)
            flat = torch.cat([pull[name].flatten().to(p.device) for name, p in held.items()])
            return _split(conjugate_gradient(product, flat, iterations), held)

        step = context.once("direction", direction)
        share = len(forget) / (len(forget) + len(splits["retain"]))

        @torch.no_grad()
        def put(strength: float) -> None:
            for name, p in held.items():
                moved = before[name].float() + strength * share * step[name].cpu().float()
                p.copy_(moved.to(p.dtype) if strength else before[name])

        if scale is None:
            fitted(model, splits, context, put, start=1e-4 if solver == "diagonal" else 1.0, growth=4.0)
        else:
            put(scale)
        return model

    return Method(apply)


def _split(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A flat vector cut into tensors of these shapes."""
    parts = flat.split([p.numel() for p in like.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(like.items(), parts, strict=True)}


def _products(
    model: Model, rows: Sequence[Example], damping: float, advance: Callable[[int], None]
) -> Callable[[Tensor], Tensor]:
    """v -> (H + damping) v by central differences of the gradient over the rows."""
    held = parameters(model)
    before = {name: p.detach().clone() for name, p in held.items()}
    size = math.sqrt(sum(float(p.detach().double().square().sum()) for p in held.values()))

    def at(v: Tensor, length: float) -> Tensor:
        with torch.no_grad():
            for name, part in _split(v, held).items():
                held[name].copy_((before[name].float() + length * part).to(held[name].dtype))
        found = gradient(model, rows, advance)
        return torch.cat([found[name].flatten() for name in held])

    def product(v: Tensor) -> Tensor:
        length = 1e-3 * (1 + size) / max(1e-30, float(v.norm()))
        difference = (at(v, length) - at(v, -length)) / (2 * length)
        with torch.no_grad():
            for name, p in held.items():
                p.copy_(before[name])
        return difference + damping * v

    return product
