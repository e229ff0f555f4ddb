"""The frame of an edit: measure the model, then write its weights at one strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model
from expunge.methods._line_search import Put, line_search
from expunge.methods._statistics import fisher, parameters, start_progress
from expunge.models.weights import fold

Prepare = Callable[[Model, Mapping[str, Sequence[Example]], Context], Put]
"""Measures the model, and returns what sets its weights to the edit of a strength."""


def edit(prepare: Prepare, strength: float | None, *, start: float, growth: float = 2.0) -> Method:
    """The method that writes an edit at `strength`, or where that is None at the one that a line search finds.

    start, growth: of the line search. Adapters are folded into the weights first.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        put = torch.no_grad()(prepare(model, splits, context))
        if strength is None:
            line_search(model, splits, context, put, start, growth)
        else:
            put(strength)
        return model

    return Method(apply)


def write_parameters(model: Model, change: Callable[[str, Tensor, float], Tensor]) -> Put:
    """Put that gives every parameter the value `change(name, value before, strength)`, on the CPU, cast to its type."""
    held = parameters(model)
    before = {name: p.detach().cpu().clone() for name, p in held.items()}

    def put(strength: float) -> None:
        for name, p in held.items():
            p.copy_(change(name, before[name], strength).to(p.dtype) if strength else before[name])

    return put


def stored_fisher(model: Model, rows: Sequence[Example], batch: int, context: Context, name: str) -> dict[str, Tensor]:
    """The Fisher diagonal over the rows (see `fisher`), on the CPU, kept in the run's folder under `name`."""

    def measure() -> dict[str, Tensor]:
        diagonal = fisher(model, rows, batch, start_progress(context, name, len(rows)))
        return {key: value.cpu() for key, value in diagonal.items()}

    return context.once(name, measure)


def mean_entry(tensors: Mapping[str, Tensor]) -> float:
    """Mean over all entries of all tensors."""
    return sum(float(x.double().sum()) for x in tensors.values()) / sum(x.numel() for x in tensors.values())
