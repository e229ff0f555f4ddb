"""Split by attribute, unlearn each part from the origin, merge the changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Card, Example, Method, Subject
from expunge.core.errors import BadInput

CARD = Card(
    "SPUNGE: split, unlearn, merge",
    paper="arXiv:2406.11780",
    equation="algorithm 1, TIES merge",
    needs={"forget": ()},
    wraps={"weights"},
)
RECIPE = {"inner": "npo"}


def ties(deltas: Sequence[Tensor], keep: float, scale: float) -> Tensor:
    """TIES: trim each change to its largest entries, elect a sign, average the agreeing ones.

    deltas: changes of one tensor, all of one shape. keep: share of entries kept. (arXiv:2306.01708)
    """
    stacked = torch.stack([delta.float() for delta in deltas])
    flat = stacked.abs().flatten(1)
    count = max(1, round(keep * flat.shape[1]))
    least = flat.kthvalue(flat.shape[1] - count + 1, 1).values
    stacked = torch.where(stacked.abs() >= least.view(-1, *[1] * (stacked.dim() - 1)), stacked, 0.0)
    sign = stacked.sum(0).sign()
    agree = (stacked.sign() == sign) & (stacked != 0)
    return scale * (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


def spunge(
    *,
    inner: Method,
    by: str = "group",
    keep: Annotated[float, Gt(0), Le(1)] = 0.2,
    scale: Annotated[float, Gt(0)] = 1.0,
) -> Method:
    """Run the inner method on each part of the forget set apart, then merge the changed weights.

    by: the field of the forget examples to split on. keep: share of each change's entries that TIES
    keeps. scale: factor on the merged change.
    """

    def apply(subject: Subject, splits: Mapping[str, Sequence[Example]], context: Context) -> Subject:
        from expunge.subjects._common import fold, snapshot
        from expunge.training.checkpoint import restore

        values = sorted({str(row.get(by)) for row in splits["forget"]})
        if any(by not in row for row in splits["forget"]):
            raise BadInput.of("method.spunge.by", by, "is missing in some forget examples", "name a field of all")
        fold(subject.module)
        before = {name: value.clone().cpu() for name, value in snapshot(subject.module).items()}
        changes: dict[str, list[Tensor]] = {}
        for value in values:
            part = {**splits, "forget": [row for row in splits["forget"] if str(row.get(by)) == value]}

            def run(part: Any = part, value: str = value) -> dict[str, Tensor]:
                fold(subject.module)
                restore(subject.module, before, "")
                inner(subject, part, context.child(f"part-{value}"))
                return {name: (tensor.cpu().float() - before[name].float())
                        for name, tensor in snapshot(subject.module).items()
                        if before[name].is_floating_point()}  # fmt: skip

            for name, delta in context.once(f"part-{value}", run).items():
                changes.setdefault(name, []).append(delta)
        fold(subject.module)
        merged = {name: before[name].float() + ties(deltas, keep, scale) for name, deltas in changes.items()}
        restore(subject.module, {**before, **merged}, "")
        return subject

    return apply
