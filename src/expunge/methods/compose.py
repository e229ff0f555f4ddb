"""From the request's `method` to a method that runs: recipes, parts, wrappers, all faults at once.

Grammar: a name (a recipe first, then a method of that name); parts {forget, retain, weights,
update, ...options}; or one method with options {spunge: {by: group, inner: npo}}. `{ilu: {inner: X}}`,
where ilu is an update, is short for X with `update: ilu`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from expunge.core import request
from expunge.core.budget import Budget
from expunge.core.card import MethodCard
from expunge.core.contracts import Method, Term, Update
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.registry import METHOD_KINDS, SINGULAR, Plugin, load, names
from expunge.methods.objective import Objective

PARTS = {"forget": "objectives", "retain": "retain", "weights": "weights", "update": "updates"}
OWN = ("forget_weight", "alpha", "source", "summary")
WHOLE = ("edits", "wrappers", "guards", "exact")


@dataclass
class Composed:
    """A method ready to run, and what the plan must know of it."""

    name: str
    kind: str
    method: Method
    plugins: list[Plugin[MethodCard]]
    described: Any
    """The method as resolved, for request.yaml and the report."""
    budget: Budget = field(default_factory=Budget)
    notes: list[str] = field(default_factory=list)
    inner: Composed | None = None
    yields: str = "weights"

    @property
    def objective(self) -> Objective | None:
        """The objective run at the core, where there is one."""
        if isinstance(self.method, Objective):
            return self.method
        return self.inner.objective if self.inner else None


@functools.cache
def recipes() -> dict[str, dict[str, Any]]:
    """Name -> parts of recipes.yaml."""
    text = (Path(__file__).parent / "recipes.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def every_method() -> dict[str, str]:
    """All that may stand under `method:`, with its kind."""
    found = {name: "recipe" for name in recipes()}
    for kind in METHOD_KINDS:
        for name in names(kind):
            if kind != "retain":  # a retain term alone is no method
                found.setdefault(name, SINGULAR[kind])
    return found


def compose(spec: Any, *, has_retain: bool = True, where: str = "method") -> Composed:
    """Raises BadInput with every fault in the method's text. has_retain: is there retain data."""
    if isinstance(spec, str):
        return _named(spec, {}, has_retain, where)
    if not isinstance(spec, Mapping) or not spec:
        raise BadInput.of(where, spec, "is no method", "give a name or a mapping of parts")
    if set(spec) & {*PARTS, *OWN}:
        return _objective(dict(spec), {}, has_retain, where)
    if len(spec) > 1:
        raise BadInput.of(
            where,
            ", ".join(map(str, spec)),
            "names several methods",
            "give one method, or its parts under forget, retain, weights, update",
        )
    ((name, options),) = spec.items()
    if isinstance(options, str) and name not in every_method():
        raise BadInput.of(where, name, "is no part of a method", did_you_mean(name, PARTS))
    if options is not None and not isinstance(options, Mapping):
        raise BadInput.of(f"{where}.{name}", options, "is no mapping of options", f"write {name}: {{option: value}}")
    return _named(str(name), dict(options or {}), has_retain, where)


def _named(name: str, options: dict[str, Any], has_retain: bool, where: str) -> Composed:
    known = every_method()
    if name not in known:
        raise BadInput.of(where, name, "is no method that we know", did_you_mean(name, known))
    kind = known[name]
    if kind == "recipe":
        return _objective(options, recipes()[name], has_retain, where, name)
    folder = next(k for k in METHOD_KINDS if SINGULAR[k] == kind)
    if folder in WHOLE:
        return _whole(load(folder, name, where), options, has_retain, where)
    plugin = load(folder, name, where)
    if folder == "updates" and "inner" in options:
        return _inside(plugin, options, has_retain, where)
    recipe = plugin.recipe
    if folder == "objectives":
        recipe = {"forget": name, **recipe}
    return _objective(options, recipe, has_retain, where, name)


def _inside(plugin: Plugin[MethodCard], options: dict[str, Any], has_retain: bool, where: str) -> Composed:
    """{ilu: {inner: X, ...}}: X with this update."""
    inner = options.pop("inner")
    parts = _parts_of(inner, f"{where}.{plugin.name}.inner")
    if "update" in parts and parts["update"] not in (None, "none", "plain"):
        raise BadInput.of(
            f"{where}.{plugin.name}.inner.update",
            parts["update"],
            f"is a second update beside {plugin.name}",
            "leave one out",
        )
    parts["update"] = {plugin.name: options}
    return compose(parts, has_retain=has_retain, where=where)


def _parts_of(spec: Any, where: str) -> dict[str, Any]:
    """An inner objective written out as parts, so that its update can be set."""
    if isinstance(spec, Mapping) and set(spec) & set(PARTS):
        return dict(spec)
    name, options = next(iter(spec.items())) if isinstance(spec, Mapping) and len(spec) == 1 else (spec, None)
    known = {name for name, kind in every_method().items() if kind in ("recipe", "objective")}
    if not isinstance(name, str) or name not in known:
        raise BadInput.of(where, name, "is no objective, and an update needs one inside", did_you_mean(name, known))
    if options is not None and not isinstance(options, Mapping):
        raise BadInput.of(f"{where}.{name}", options, "is no mapping of options", f"write {name}: {{option: value}}")
    recipe = recipes()[name] if name in recipes() else {"forget": name, **load("objectives", name).recipe}
    return {**{k: v for k, v in recipe.items() if k not in ("source", "summary")}, **dict(options or {})}


def _whole(plugin: Plugin[MethodCard], options: dict[str, Any], has_retain: bool, where: str) -> Composed:
    options = {**plugin.recipe, **options}
    budget, options = _budget(options, set(plugin.options()))
    inner = None
    if "inner" in plugin.options():
        spec = options.get("inner", "npo")
        inner = compose(spec, has_retain=has_retain, where=f"{where}.{plugin.name}.inner")
        allowed = set(plugin.card.wraps)
        if allowed and inner.yields not in allowed and inner.kind not in allowed:
            raise BadInput.of(
                f"{where}.{plugin.name}.inner",
                inner.name,
                f"yields {inner.yields}",
                f"{plugin.name} wraps methods that yield {' or '.join(sorted(allowed))}",
            )
        options["inner"] = inner.method
    values = plugin.validate(options, f"{where}.{plugin.name}")
    shown = {k: v for k, v in values.items() if k != "inner"} | ({"inner": inner.described} if inner else {})
    method = plugin.factory(**values)
    return Composed(
        plugin.name,
        SINGULAR[plugin.kind],
        method if isinstance(method, Method) else Method(method),
        [plugin, *(inner.plugins if inner else [])],
        {plugin.name: shown},
        request.parse(Budget, budget, f"{where}.{plugin.name}").over(inner.budget if inner else Budget()),
        inner.notes if inner else [],
        inner,
        plugin.card.yields,
    )


def _budget(options: Mapping[str, Any], taken: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(budget fields, the rest); a part's own option of the same name wins."""
    inside = {k: v for k, v in options.items() if k in Budget.model_fields and k not in taken}
    return inside, {k: v for k, v in options.items() if k not in inside}


def _objective(
    given: dict[str, Any], recipe: Mapping[str, Any], has_retain: bool, where: str, name: str = ""
) -> Composed:
    if not recipe and isinstance(given.get("forget"), str) and given["forget"] in names("objectives"):
        own = load("objectives", given["forget"], f"{where}.forget").recipe
        recipe = {k: v for k, v in own.items() if k not in PARTS or k == "weights"}
    options = {**recipe, **given}
    notes: list[str] = []
    if options.get("retain") not in (None, "none") and not has_retain:
        if "retain" in given:
            raise BadInput.of(
                f"{where}.retain",
                str(given["retain"]),
                "needs retain data, and there is none",
                "add retain: FILE, or leave the term out",
            )
        if options.get("forget") in (None, "none"):
            raise BadInput.of(
                where,
                name,
                "trains on retain data alone, and there is none",
                "add retain: FILE, or choose another method",
            )
        notes.append(f"No retain data: the recipe's retain term {options['retain']!r} was dropped.")
        options["retain"] = None
    faults = Faults()
    plugins: dict[str, Plugin[MethodCard]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for part, kind in PARTS.items():
        with faults:
            if found := _part(options.get(part), kind, f"{where}.{part}"):
                plugins[part], chosen[part] = found
    for part, default in (("weights", "all"), ("update", "plain")):
        if part not in plugins and options.get(part) in (None, "none"):
            plugins[part], chosen[part] = load(PARTS[part], default), {}
    faults.raise_any()
    if "forget" not in plugins and "retain" not in plugins:
        raise BadInput.of(
            where,
            name or str(given),
            "has neither a forget nor a retain term",
            "name one: " + ", ".join(names("objectives")),
        )
    taken = {option for plugin in plugins.values() for option in plugin.options()}
    budget, options = _budget(options, taken)
    free = {k: v for k, v in options.items() if k not in PARTS and k not in OWN}
    for option, value in free.items():
        takers = [part for part, plugin in plugins.items() if option in plugin.options()]
        if not takers:
            if option in given:
                faults.add(
                    BadInput.of(
                        f"{where}.{option}",
                        option,
                        "is an option of none of the parts",
                        did_you_mean(option, {*taken, *PARTS, *OWN[:2]}),
                    )
                )
            continue
        for part in takers:
            chosen[part].setdefault(option, value)
    values = {}
    for part, plugin in plugins.items():
        with faults:
            values[part] = plugin.validate(chosen[part], f"{where}.{part}")
    weights = {}
    for key in ("forget_weight", "alpha"):
        with faults:
            weights[key] = _number(options.get(key, 1.0), f"{where}.{key}")
    recipe_budget = Budget()
    with faults:
        recipe_budget = request.parse(Budget, budget, where)
    faults.raise_any()
    terms = {}
    for part, weight in (("forget", "forget_weight"), ("retain", "alpha")):
        if part in plugins:
            plugin = plugins[part]
            terms[part] = Term.of(plugin.name, plugin.factory(**values[part]), plugin.card, weights[weight])
    update = plugins["update"].factory(**values["update"])
    method = Objective(
        terms,
        plugins["weights"].factory(**values["weights"]),
        update if isinstance(update, Update) else Update(update),
        recipe_budget,
        math.prod(getattr(plugin.module, "RATE", 1.0) for plugin in plugins.values()),
        anchor="forget" if "forget" in terms else "retain",
    )
    described = {part: {plugin.name: values[part]} for part, plugin in plugins.items()} | weights
    title = name or " + ".join(plugins[part].name for part in ("forget", "retain") if part in plugins)
    return Composed(
        title, "recipe" if recipe else "objective", method, list(plugins.values()), described, recipe_budget, notes
    )


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise BadInput.of(where, value, "is no weight", "give a number from 0 up to 1e9")
    return float(value)


def _part(value: Any, kind: str, where: str) -> tuple[Plugin[MethodCard], dict[str, Any]] | None:
    """A part as `name` or `{name: {options}}`; None for none."""
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        return load(kind, value, where), {}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, options),) = value.items()
        if options is None or isinstance(options, Mapping):
            return load(kind, str(name), where), dict(options or {})
    raise BadInput.of(where, value, f"is no {SINGULAR[kind]}", "write name, or {name: {option: value}}")
