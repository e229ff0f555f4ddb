"""The change of weights that an inner method makes, of which a wrapper writes its own version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model
from expunge.methods._other_model import check_start, start_weights
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore

Weights = Mapping[str, Tensor]


def change_of(
    inner: Method, model: Model, splits: Mapping[str, Sequence[Example]], context: Context
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights before, weights after) the inner method, adapters folded in, on the CPU."""
    fold(model.module)
    before = {name: value.cpu().clone() for name, value in snapshot(model.module).items()}

    def change() -> dict[str, Tensor]:
        changed = inner(model, splits, context.child("inner"))
        fold(changed.module)
        return {name: value.cpu().clone() for name, value in snapshot(changed.module).items()}

    after = context.once("inner", change) if inner.steps != 0 else change()  # what takes no step is read anew
    if "outcome" in context.notes.get("inner", {}):
        context.notes["outcome"] = context.notes["inner"]["outcome"]
    return before, after


Rewrite = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]
"""(a weight before, its change, what the base's training had added to it, a generator) -> the weight to write."""


class ByTraining(Method):
    """Rewrite each weight's change by what the base's training had added to the weight.

    start: the model that the base was trained from; by default its manifest says. where: the option's place, for
    messages. Buffers, and weights that the start does not have, stay as the inner method left them.
    """

    def __init__(self, inner: Method, start: str | None, rewrite: Rewrite, where: str) -> None:
        super().__init__()
        self.inner, self.start, self.rewrite, self.where = inner, start, rewrite, where

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        check_start(self.start, model, manifest, self.where)
        return self.inner.fits(model, splits, manifest)

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        before, after = change_of(self.inner, model, splits, context)
        first = start_weights(self.start, model, context.manifest, self.where)
        generator = context.generator("rewrite")
        written = dict(after)
        for name in before.keys() & first.keys():
            old = before[name].float()
            found = self.rewrite(old, after[name].float() - old, old - first[name].float(), generator)
            written[name] = found.to(before[name].dtype)
        restore(model.module, written, "")
        return model


def leading(vector: Tensor, rank: int) -> Tensor:
    """[rows, rank] the leading left singular vectors of a weight, its further dimensions taken as columns."""
    left, _, _ = torch.linalg.svd(vector.flatten(1), full_matrices=False)
    return left[:, :rank]


def project(weight: Tensor, basis: Tensor) -> Tensor:
    """The weight's part in the span of the basis's columns."""
    return (basis @ (basis.T @ weight.flatten(1))).view_as(weight)
