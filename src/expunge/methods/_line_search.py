"""Line search over the strength of an edit: a published strength destroys one model and does nothing to the next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from expunge.core.budget import DEFAULTS
from expunge.core.context import Context
from expunge.core.contracts import Example, Model, want_of
from expunge.data.sampling import halves, sample
from expunge.models.family import family
from expunge.training.stopping import figures

TRIALS, HALVINGS = 10, 3
"""Strengths tried before the bracket is closed, and afterwards."""
FORGET_SAMPLE = 128
"""Forget examples read at each strength, at most."""

Put = Callable[[float], None]
"""Sets the model to the edit of a strength, each time from the weights before; 0 restores them."""


@dataclass(frozen=True)
class Point:
    """Measurements at one strength: forget NLL in nats per token, retain knowledge relative to the model before."""

    strength: float
    forget_nll: float
    kept: float
    reached: float
    """1 where the forget set is at its target, else 0."""


@dataclass(frozen=True)
class Goal:
    """The forget-loss target and the retain floor, with the examples on which both are measured."""

    forget: Sequence[Example]
    retain: Sequence[Example]
    level: float | None
    """Forget NLL to reach; None: blind guessing."""
    floor: float
    classes: int | None
    """None where the family gives no distribution to guess from."""
    utility: str
    """The figure that the floor is about: the family's `kept`."""
    before: Mapping[str, float]
    """Figures on retain before the edit."""
    reached_before: bool
    """The forget set is at its target already, so that the floor alone decides."""

    @classmethod
    def of(cls, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Goal:
        forget = sample(splits["forget"], context.seed, FORGET_SAMPLE)
        retain = sample(splits["retain"], context.seed)
        before, start = figures(model, retain), figures(model, forget)
        floor = float(context.budget.over(DEFAULTS).floor or 0.0)
        utility = family(model.family).kept
        level, classes = _target(model, splits, context), _classes(model, splits)
        goal = cls(forget, retain, level, floor, classes, utility, before, reached_before=False)
        return dataclasses.replace(goal, reached_before=goal.is_reached(start))

    def is_reached(self, forget: Mapping[str, float]) -> bool:
        """True where figures on forget are at the target; past blind guessing there is nothing left to forget."""
        if self.level is not None:
            return forget["nll"] >= self.level
        if self.classes is None:
            return False  # nothing to guess from: the floor alone decides
        return forget["nll"] >= math.log(self.classes) and forget.get("accuracy", 0.0) <= 0.5 / self.classes

    def measure(self, model: Model, strength: float) -> Point:
        """The point of a model that is at this strength."""
        forget = figures(model, self.forget)
        kept = figures(model, self.retain)[self.utility] / max(1e-9, self.before[self.utility])
        finite = math.isfinite(forget["nll"]) and math.isfinite(kept)
        return Point(
            strength, forget["nll"], kept, float(finite and not self.reached_before and self.is_reached(forget))
        )

    def holds(self, point: Point) -> bool:
        """True where every figure is finite and the retain floor holds."""
        return math.isfinite(point.forget_nll) and math.isfinite(point.kept) and point.kept >= self.floor

    def rank(self, point: Point) -> tuple[float, float]:
        """Sort key, best first: nearest to the target NLL; else the weakest that reaches it, or the strongest."""
        if self.level is not None and not self.reached_before:
            return abs(math.log(max(1e-9, point.forget_nll) / self.level)), point.strength
        return -point.reached, point.strength if point.reached else -point.strength


def line_search(
    model: Model,
    splits: Mapping[str, Sequence[Example]],
    context: Context,
    put: Put,
    start: float,
    growth: float = 2.0,
) -> float:
    """Put the model at the strength that comes nearest to the forget-loss target with the retain floor held.

    The target is the holdout's or gold's NLL where the budget stops there, else blind guessing. Returns the strength,
    0 where none that was tried holds the floor; the point chosen is noted under `strength`.
    """
    goal = Goal.of(model, splits, context)
    points: list[Point] = []

    def too_far(strength: float) -> bool:
        put(strength)
        points.append(goal.measure(model, strength))
        return not goal.holds(points[-1]) or bool(points[-1].reached)

    bracket(too_far, start, growth)
    best = min(filter(goal.holds, points), key=goal.rank, default=None)
    strength = best.strength if best else 0.0
    put(strength)
    failure = {"strength": 0.0, "why": "no strength that was tried holds the floor"}
    note = dataclasses.asdict(best) if best else failure
    context.notes["strength"] = {**note, "level": goal.level, "floor": goal.floor, "tried": len(points)}
    return strength


def bracket(too_far: Callable[[float], bool], start: float, growth: float) -> None:
    """Try strengths around the largest that is not too far.

    They grow from `start` until one is too far, or shrink until one is not; the bracket is then halved, on a
    logarithmic scale.
    """
    low = high = 0.0
    value = start
    for _ in range(TRIALS):
        if too_far(value):
            high, value = value, value / growth
            if low:
                break
        else:
            low, value = value, value * growth
            if high:
                break
    for _ in range(HALVINGS if low and high else 0):
        value = math.sqrt(low * high)
        if too_far(value):
            high = value
        else:
            low = value


def _target(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> float | None:
    """Forget NLL to reach, nats per token; None where the budget stops at none."""
    if context.budget.stop == "holdout" and splits.get("holdout"):
        return figures(model, halves(splits["holdout"], context.seed)[0])["nll"]
    return context.gold_forget_nll if context.budget.stop == "gold" else None


def _classes(model: Model, splits: Mapping[str, Sequence[Example]]) -> int | None:
    """Number of classes, or of tokens in the vocabulary; None where the family gives no distribution."""
    if "logits" not in family(model.family).gives:
        return None
    out = model.forward(model.collate(splits["forget"][:1]), want_of({"logits"}))
    return int(out.logits_BTV.shape[-1])
