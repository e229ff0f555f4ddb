"""How hard to edit, when nobody says: a published strength destroys one model and does nothing to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expunge.core.budget import DEFAULTS
from expunge.core.context import Context
from expunge.core.contracts import Example, Model, want_of
from expunge.data.sampling import halves, sample
from expunge.models.family import family
from expunge.training.stopping import figures

MOST, HALVINGS = 10, 3
READ = 128
"""Forget examples that are read at a strength, at most."""


def fitted(
    model: Model,
    splits: Mapping[str, Sequence[Example]],
    context: Context,
    put: Callable[[float], None],
    start: float,
    growth: float = 2.0,
) -> float:
    """Puts the model at the strength that comes nearest to the forget level with the budget's floor held.

    put: sets the weights to the edit of that strength (0: as they were), each time from the weights before.
    The strength grows from `start` until retain breaks the floor or the forget NLL reaches its level (the
    holdout's or gold's where the budget stops there, else blind guessing), shrinks where even the
    start does, and the bracket is then halved a few times. Notes say what was found.
    """
    budget = context.budget.over(DEFAULTS)
    forget = sample(splits["forget"], context.seed, READ)
    retain = sample(splits["retain"], context.seed)
    before, start_forget = figures(model, retain), figures(model, forget)
    key = family(model.family).kept
    floor = float(budget.floor or 0.0)
    level = _level(model, splits, context)
    chance = _classes(model, splits)
    points: list[dict[str, float]] = []

    def there(found: Mapping[str, float]) -> bool:
        """Is the forget set where it should be; past blind guessing there is nothing left to forget."""
        if level is not None:
            return found["nll"] >= level
        if chance is None:
            return False  # no guessing blindly without classes or tokens: the floor alone is left to go by
        return found["nll"] >= math.log(chance) and found.get("accuracy", 0.0) <= 0.5 / chance

    open_end = there(start_forget)  # already there, so that the floor alone is left to go by

    def too_far(strength: float) -> bool:
        """Is this past the floor or the level."""
        put(strength)
        found = figures(model, forget)
        kept = figures(model, retain)[key] / max(1e-9, before[key])
        sound = math.isfinite(found["nll"]) and math.isfinite(kept)
        reached = not open_end and sound and there(found)
        points.append(
            {
                "strength": strength,
                "forget_nll": found["nll"] if sound else 1e9,
                "kept": kept if sound else -1.0,
                "reached": float(reached),
            }
        )
        return not sound or kept < floor or reached

    low = high = 0.0
    value = start
    for _ in range(MOST):
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
    good = [point for point in points if point["kept"] >= floor]

    def rank(point: Mapping[str, float]) -> tuple[float, float]:
        """The nearest to a level; else the weakest that is there, or the strongest that is not."""
        if level is not None and not open_end:
            return abs(math.log(max(1e-9, point["forget_nll"]) / level)), point["strength"]
        return -point["reached"], point["strength"] if point["reached"] else -point["strength"]

    best = min(good, key=rank, default=None)
    chosen = best["strength"] if best else 0.0
    put(chosen)
    note: dict[str, Any] = {"strength": 0.0, "why": "no strength that was tried holds the floor"}
    context.notes["strength"] = {**(best or note), "level": level, "floor": floor, "tried": len(points)}
    return chosen


def _level(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> float | None:
    """The forget NLL to reach; None where the budget stops at none."""
    if context.budget.stop == "holdout" and splits.get("holdout"):
        return figures(model, halves(splits["holdout"], context.seed)[0])["nll"]
    if context.budget.stop == "gold" and "gold_forget_nll" in context.notes:
        return float(context.notes["gold_forget_nll"])
    return None


def _classes(model: Model, splits: Mapping[str, Sequence[Example]]) -> int | None:
    """Classes, or tokens of the vocabulary; None where the family gives no distribution."""
    if "logits" not in family(model.family).gives:
        return None
    out = model.forward(model.collate(splits["forget"][:1]), want_of({"logits"}))
    return int(out.logits_BTV.shape[-1])
