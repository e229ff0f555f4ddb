"""SPUNGE: split by attribute, unlearn each part from the reference model, merge the changes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "SPUNGE: split, unlearn, merge",
    paper="arXiv:2406.11780",
    equation="algorithm 1, TIES merge",
    needs={"forget": ()},
    wraps={"weights"},
    fidelity="faithful",
    shown="At equal forget NLL it keeps more of retain than NPO alone on each of three seeds, .03 more on average.",
)
RECIPE = {"inner": "npo"}


def ties(changes: Sequence[Mapping[str, Tensor]], keep: float, scale: float) -> dict[str, Tensor]:
    """Merge by TIES: trim each change to its largest entries, elect a sign, average the agreeing ones.

    changes: tensors by name, a mapping for each part. keep: share of a change's entries that is kept, over all its
    tensors. (arXiv:2306.01708)
    """
    leasts = []
    for change in changes:
        flat = torch.cat([delta.float().abs().flatten() for delta in change.values()])
        count = max(1, round(keep * len(flat)))
        leasts.append(flat.kthvalue(len(flat) - count + 1).values)
    merged = {}
    for name in changes[0]:
        stacked = torch.stack(
            [
                torch.where(change[name].abs() >= least, change[name].float(), 0.0)
                for change, least in zip(changes, leasts, strict=True)
            ]
        )
        agree = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
        merged[name] = scale * (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)
    return merged


def spunge(
    *,
    inner: Method,
    by: str = "group",
    keep: Annotated[float, Gt(0), Le(1)] = 0.2,
    scale: Annotated[float, Gt(0)] = 1.0,
) -> Method:
    """Run the inner method on each part of the forget set alone, then merge the changed weights.

    by: the field of the forget examples to split on. keep: share of each change's entries that TIES
    keeps. scale: factor on the merged change.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        values = sorted({str(row.get(by)) for row in splits["forget"]})
        if any(by not in row for row in splits["forget"]):
            raise BadInput.of(
                "method.spunge.by", by, "is missing in some forget examples", "name a field that all have"
            )
        fold(model.module)
        before = {name: value.clone().cpu() for name, value in snapshot(model.module).items()}

        def change(number: int, value: str) -> dict[str, Tensor]:
            part = {**splits, "forget": [row for row in splits["forget"] if str(row.get(by)) == value]}
            fold(model.module)
            restore(model.module, before, "")
            inner(model, part, context.child(f"part-{number}", draws=f"part-{value}"))
            return {
                name: (tensor.cpu().float() - before[name].float())
                for name, tensor in snapshot(model.module).items()
                if before[name].is_floating_point()
            }

        changes = [
            context.once(f"part-{number}", functools.partial(change, number, value))
            for number, value in enumerate(values, 1)
        ]
        fold(model.module)
        merged = {name: before[name].float() + delta for name, delta in ties(changes, keep, scale).items()}
        restore(model.module, {**before, **merged}, "")
        return model

    return Method(apply)
