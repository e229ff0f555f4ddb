"""Prune once by magnitude, then run any method on what is left."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods._masks import mask_largest
from expunge.methods.objective import plain_training
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "One-shot magnitude pruning, then any method",
    paper="arXiv:2304.04934",
    equation="section 4, prune first, then unlearn, with OMP",
    needs={"forget": ()},
    optional=("retain",),
    wraps={"weights"},
    one_shot=True,
    fidelity="simplified",
    leaves_out="a rewind to early weights before the pruned network is retrained, and pruning by SynFlow",
    shown="Fine-tuning, gradient difference and NPO end nearer to gold on a network pruned by eight tenths than on the "
    "dense one; random labels, influence, a bad teacher and SSD did not.",
    means="What stays is trained again on all rows before anything is forgotten, which costs as much as it says.",
)
RECIPE = {"inner": "npo"}


class Pruned(Method):
    """The method of omp(); retraining: the budget of what stays, None for none."""

    def __init__(self, inner: Method, sparsity: float, retraining: Budget | None) -> None:
        super().__init__()
        self.inner, self.sparsity, self.retraining = inner, sparsity, retraining

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        return self.inner.fits(model, splits, manifest)

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        masks = kept_entries(model.module, self.sparsity)
        with ExitStack() as lent:
            for name, parameter in model.module.named_parameters():
                if name in masks:
                    lent.callback(parameter.register_hook(functools.partial(torch.mul, masks[name])).remove)
            _zero(model.module, masks)
            if self.retraining is not None and context.budget.steps != 0:
                restore(model.module, context.once("pruned", lambda: self._retrain(model, splits, context)), "")
            changed = self.inner(model, splits, context.child("inner"))
        fold(changed.module)
        _zero(changed.module, masks)
        if "outcome" in context.notes["inner"]:
            context.notes["outcome"] = context.notes["inner"]["outcome"]
        context.notes["omp"] = {"sparsity": 1 - _share_of(masks)}
        return changed

    def _retrain(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> dict[str, Tensor]:
        """Train what stays on all rows; return the weights."""
        assert self.retraining is not None
        budget = self.retraining.over(Budget(precision=context.budget.precision, memory=context.budget.memory))
        rows = [row for name in ("retain", "forget") for row in splits.get(name, [])]
        trained = plain_training()(model, {"retain": rows}, context.child("retraining", budget=budget, watch=None))
        return {name: value.cpu().clone() for name, value in snapshot(trained.module).items()}


def omp(
    *,
    inner: Method,
    sparsity: Annotated[float, Ge(0), Lt(1)] = 0.8,
    retrain: Annotated[int, Ge(0), Le(1000)] = 8,
    retrain_share: Annotated[float, Gt(0), Le(10)] = 0.5,
) -> Method:
    """Set the smallest weights to zero, train the others again, and run the inner method on these alone.

    sparsity: the share of all entries of matrices and kernels that goes; vectors stay. retrain: passes over forget and
    retain by which the pruned network learns again what it lost, in batches of 32, at `retrain_share` of the base's
    learning rate with a cosine. Gradients of what was pruned are zero all the while, and what the inner method writes
    there by another way is set to zero after it.
    """
    values: dict[str, Any] = {"schedule": "cosine", "warmup": 0.1, "weight_decay": 0.0, "stop": "none", "floor": 0.0}
    retraining = Budget(epochs=retrain, batch_size=32, share=retrain_share, **values) if retrain else None
    return Pruned(inner, sparsity, retraining)


def kept_entries(module: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """The masks of the largest entries of all matrices and kernels together, by the parameter's name."""
    sizes = {name: p.detach().abs().float() for name, p in module.named_parameters() if p.is_floating_point()}
    matrices = {name: size for name, size in sizes.items() if size.dim() > 1}
    return mask_largest(matrices, 1 - sparsity) if matrices else {}


@torch.no_grad()
def _zero(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every entry outside the masks to zero."""
    for name, parameter in module.named_parameters():
        if name in masks:
            parameter.mul_(masks[name])


def _share_of(masks: Mapping[str, Tensor]) -> float:
    """The share of the masks' entries that stay; 1 where there are none."""
    entries = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / entries if entries else 1.0
