"""The numbers that a request leaves open: which, from where to where, and the request with values in their places."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.budget import DEFAULTS
from expunge.core.registry import Plugin
from expunge.methods.compose import PARTS, Composed
from expunge.pipeline.plan import Plan

WIDE = 10.0
"""A number is searched from a tenth of its default to ten times it, within its own bounds."""
RATES = (1e-6, 3e-3)
"""Learning rates that are tried where no manifest says at what rate the base was trained."""


@dataclass(frozen=True)
class Axis:
    """One number to search. path: where it stands in the request."""

    name: str
    path: tuple[str, ...]
    low: float
    high: float
    default: float
    log: bool = True
    whole: bool = False


def axes(planned: Plan) -> Iterator[Axis]:
    """The learning rate, the length, and the bounded numbers of the method's parts, unless the request gives them."""
    asked, budget = planned.request.budget, planned.budget
    objective = planned.composed.objective
    if objective is not None:
        if asked.share is None and not isinstance(budget.learning_rate, float):
            if (planned.manifest or {}).get("learning_rate"):
                share = float(budget.share or DEFAULTS.share or 0.1)
                yield Axis("budget.share", ("budget", "share"), share / WIDE, min(WIDE, share * WIDE), share)
            else:
                yield Axis("budget.learning_rate", ("budget", "learning_rate"), *RATES, 1e-5)
        if asked.epochs is None and asked.steps is None:
            name = "steps" if budget.steps is not None else "epochs"
            length = int(budget.steps or budget.epochs or 1)
            yield Axis(f"budget.{name}", ("budget", name), max(1, length // 4), 4 * length, length, whole=True)
    fixed = set(_keys(planned.request.method))
    for path, plugin, options in _parts(planned.composed):
        for option, default in options.items():
            axis = _axis(plugin, option, default, ("method", *path, option))
            if axis is not None and option not in fixed:
                yield axis


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)


def _parts(composed: Composed | None) -> Iterator[tuple[tuple[str, ...], Plugin, Mapping[str, Any]]]:
    """(where its options stand in the method as resolved, plug-in, options) of every part."""
    path: tuple[str, ...] = ()
    while composed is not None:
        for plugin in composed.plugins:
            parts = [part for part, kind in PARTS.items() if kind == plugin.kind]
            part = next((part for part in parts if plugin.name in (composed.described.get(part) or ())), None)
            place = (part, plugin.name) if part else (plugin.name,)
            options: Any = composed.described
            for name in place:
                options = options.get(name) if isinstance(options, Mapping) else None
            if isinstance(options, Mapping):
                yield (*path, *place), plugin, options
        path, composed = (*path, composed.name, "inner"), composed.inner


def _axis(plugin: Plugin, option: str, default: Any, path: tuple[str, ...]) -> Axis | None:
    """The range of an option; None where it is not a bounded number, or its default gives no scale to search on."""
    if isinstance(default, bool) or not isinstance(default, int | float) or default <= 0:
        return None
    bounds: list[Any] = list(plugin.fields()[option].metadata)
    lows = [float(getattr(bound, key)) for bound in bounds for key in ("gt", "ge") if hasattr(bound, key)]
    highs = [float(getattr(bound, key)) for bound in bounds for key in ("lt", "le") if hasattr(bound, key)]
    if not lows and not highs:
        return None
    whole = isinstance(default, int)
    low, high = max([default / WIDE, *lows]), min([default * WIDE, *highs])
    strict = any(hasattr(bound, "lt") and high >= bound.lt for bound in bounds)
    if whole:
        low, high = max(1, round(low)), int(high) - strict
    elif strict:
        high = default + 0.99 * (high - default)
    return Axis(f"{plugin.name}.{option}", path, low, high, default, whole=whole) if low < high else None


def with_values(planned: Plan, resolved: Mapping[str, Any], values: Mapping[Axis, float]) -> dict[str, Any]:
    """The request with its method written out, the recipe's budget in it, and the values in their places."""
    budget = planned.request.budget.over(planned.composed.budget).model_dump(exclude_unset=True)
    made: dict[str, Any] = json.loads(json.dumps({**resolved, "method": planned.composed.described, "budget": budget}))
    for axis, value in values.items():
        place = made
        for name in axis.path[:-1]:
            place = place.setdefault(name, {})
        place[axis.path[-1]] = int(value) if axis.whole else value
    return made
