"""Interpolation between the model before and the model after the inner method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods._line_search import Goal
from expunge.methods.wrappers._change import change_of
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "WiSE-FT: interpolated weights",
    paper="arXiv:2109.01903",
    equation="(1 - share) before + share after",
    needs={"forget": ()},
    optional=("retain",),
    wraps={"weights"},
    means="Gives back what must stay at the price of what had to go: the forget set is known again in part.",
    shown="On a small world, under the same stop and floor as NPO, it keeps more of the knowledge that no method was "
    "given, with the answers as gone.",
    fidelity="variant",
    leaves_out="the average over shares chosen on test data: one share is chosen on samples of forget and retain",
)
RECIPE = {"inner": "npo"}


class WiseFt(Method):
    """The method of wise_ft()."""

    def __init__(self, inner: Method, points: int, share: float | None) -> None:
        super().__init__()
        self.inner, self.points, self.share = inner, points, share

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        if self.share is None and not splits.get("retain"):
            fix = "add retain: FILE, or give the share"
            raise BadInput.of("retain", "", "is missing, and wise_ft looks for its share on it", fix)
        return self.inner.fits(model, splits, manifest)

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        goal = Goal.of(model, splits, context) if self.share is None else None
        before, after = change_of(self.inner, model, splits, context)

        def put(share: float) -> None:
            restore(model.module, interpolate(before, after, share), "")

        if goal is None:
            assert self.share is not None
            put(self.share)
            context.notes["wise_ft"] = {"strength": self.share}
            return model
        measured = []
        for i in range(self.points):
            put((i + 1) / self.points)
            measured.append(goal.measure(model, (i + 1) / self.points))
        best = min(filter(goal.holds, measured), key=goal.rank, default=None)
        if best:
            put(best.strength)
        else:  # not by a share of 0: weights that are not finite would stay so
            restore(model.module, before, "")
        context.notes["wise_ft"] = dataclasses.asdict(best) if best else {"strength": 0.0}
        return model


def wise_ft(
    *, inner: Method, points: Annotated[int, Ge(1)] = 10, share: Annotated[float, Gt(0), Le(1)] | None = None
) -> Method:
    """Run the inner method, and keep the share of its change that comes nearest to the target with the floor held.

    theta_before + s (theta_after - theta_before), s = 1/points, ..., 1, or the share that is given. Target and floor
    are those of the budget: the forget NLL of the holdout or of gold where it stops there, else blind guessing; the
    share of utility on retain. If no share holds the floor, the model is as before.
    """
    return WiseFt(inner, points, share)


def interpolate(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights at a share of the way: 0 is before, 1 after; what is not a floating-point number is as after."""
    return {
        name: value.double().lerp(after[name].double(), share).to(value.dtype)
        if value.is_floating_point()
        else after[name]
        for name, value in before.items()
    }
