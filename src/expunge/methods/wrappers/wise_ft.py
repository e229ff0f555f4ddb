"""Interpolation between the model before and the model after the inner method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods._line_search import Goal
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "WiSE-FT: interpolated weights",
    paper="arXiv:2109.01903",
    equation="(1 - share) before + share after",
    needs={"forget": (), "retain": ()},
    wraps={"weights"},
    means="Gives back what must stay at the price of what had to go: the forget set is known again in part.",
    fidelity="variant",
    leaves_out="the average over shares chosen on test data: one share is chosen on samples of forget and retain",
)
RECIPE = {"inner": "npo"}


def wise_ft(*, inner: Method, points: Annotated[int, Ge(1)] = 10) -> Method:
    """Run the inner method, and keep the share of its change that comes nearest to the target with the floor held.

    theta_before + s (theta_after - theta_before), s = 1/points, ..., 1. Target and floor are those of the budget: the
    forget NLL of the holdout or of gold where it stops there, else blind guessing; the share of utility on retain. If
    no share holds the floor, the model is as before.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        before = {name: value.cpu().clone() for name, value in snapshot(model.module).items()}
        goal = Goal.of(model, splits, context)

        def change() -> dict[str, Tensor]:
            changed = inner(model, splits, context.child("inner"))
            fold(changed.module)
            return {name: value.cpu().clone() for name, value in snapshot(changed.module).items()}

        after = context.once("inner", change)
        if "outcome" in context.notes.get("inner", {}):
            context.notes["outcome"] = context.notes["inner"]["outcome"]

        def put(share: float) -> None:
            restore(model.module, interpolate(before, after, share), "")

        measured = []
        for i in range(points):
            put((i + 1) / points)
            measured.append(goal.measure(model, (i + 1) / points))
        best = min(filter(goal.holds, measured), key=goal.rank, default=None)
        if best:
            put(best.strength)
        else:  # not by a share of 0: weights that are not finite would stay so
            restore(model.module, before, "")
        context.notes["wise_ft"] = dataclasses.asdict(best) if best else {"strength": 0.0}
        return model

    return Method(apply)


def interpolate(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights at a share of the way: 0 is before, 1 after; what is not a floating-point number is as after."""
    return {
        name: value.double().lerp(after[name].double(), share).to(value.dtype)
        if value.is_floating_point()
        else after[name]
        for name, value in before.items()
    }
