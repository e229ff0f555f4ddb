"""From the request's `method` to a method that runs: recipes, parts, wrappers, all faults at once.

Grammar: a name (a recipe first, then a method of that name); parts {forget, beside, retain, weights, update,
...options}; one method with options {spunge: {by: group, inner: npo}}; or {model: FOLDER}, a model that somebody else
changed. `{ilu: {inner: X}}`, where ilu is an update, is short for X with `update: ilu`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from expunge.core import request
from expunge.core.budget import Budget
from expunge.core.card import MethodCard
from expunge.core.contracts import Method
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.registry import METHOD_KINDS, SINGULAR, Plugin, load, names
from expunge.methods._parts import ABOUT as ABOUT
from expunge.methods._parts import OWN, bind, build, merge, split_budget
from expunge.methods._parts import PARTS as PARTS
from expunge.methods.given import NAME as GIVEN
from expunge.methods.given import Given
from expunge.methods.objective import Objective

WHOLE = ("edits", "wrappers", "guards", "exact", "federated")
"""Kinds of plug-in that are a method by themselves."""


@dataclass
class Composed:
    """A method ready to run, with what the plan must know of it."""

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

    @property
    def ahead(self) -> int:
        """Tokens that it trains on besides the steps of the objective, its own and those of what is within."""
        return self.method.ahead + (self.inner.ahead if self.inner else 0)

    @property
    def optional(self) -> set[str]:
        """Splits that these options read where they are there, its own and those of what is within."""
        return {*self.method.optional, *(self.inner.optional if self.inner else ())}


@functools.cache
def recipes() -> dict[str, dict[str, Any]]:
    """Name -> parts of recipes.yaml."""
    text = (Path(__file__).parent / "recipes.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def every_method() -> dict[str, str]:
    """Name -> kind of everything that `method:` may name; a retain term alone is not a method."""
    methods = {name: "recipe" for name in recipes()}
    for kind in METHOD_KINDS:
        if kind != "retain":
            for name in names(kind):
                methods.setdefault(name, SINGULAR[kind])
    return methods


def compose(spec: Any, *, has_retain: bool = True, where: str = "method") -> Composed:
    """Resolve the method of a request. Raises BadInput with every fault in its text.

    has_retain: whether the request has retain data.
    """
    if isinstance(spec, str):
        return _resolve(spec, {}, has_retain, where)
    if not isinstance(spec, Mapping) or not spec:
        raise BadInput.of(where, spec, "is not a method", "give a name or a mapping of parts")
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
    if name == "model":
        return _changed_model(options, f"{where}.model")
    if isinstance(options, str) and name not in every_method():
        raise BadInput.of(where, name, "unknown part of a method", did_you_mean(name, PARTS))
    return _resolve(str(name), _mapping(options, f"{where}.{name}", name), has_retain, where)


def _changed_model(source: Any, where: str) -> Composed:
    """Resolve {model: FOLDER}."""
    if not isinstance(source, str) or not source.strip():
        raise BadInput.of(where, source, "names no model", "give the folder of the changed model")
    return Composed(GIVEN, "changed model", Given(source, where), [], {"model": source})


def _mapping(options: Any, where: str, name: object) -> dict[str, Any]:
    """Check that options are a mapping, or None. Raises BadInput."""
    if options is not None and not isinstance(options, Mapping):
        raise BadInput.of(where, options, "is not a mapping of options", f"write {name}: {{option: value}}")
    return dict(options or {})


def _resolve(name: str, options: dict[str, Any], has_retain: bool, where: str) -> Composed:
    """Resolve a recipe or a plug-in by its name."""
    known = every_method()
    if name not in known:
        raise BadInput.of(where, name, "unknown method", did_you_mean(name, known))
    kind = known[name]
    if kind == "recipe":
        return _objective(options, recipes()[name], has_retain, where, name)
    folder = next(k for k in METHOD_KINDS if SINGULAR[k] == kind)
    plugin = load(folder, name, where)
    if folder in WHOLE:
        return _whole(plugin, options, has_retain, where)
    if folder == "updates" and "inner" in options:
        return _inside(plugin, options, has_retain, where)
    recipe = {"forget": name, **plugin.recipe} if folder == "objectives" else plugin.recipe
    return _objective(options, recipe, has_retain, where, name)


def _inside(plugin: Plugin[MethodCard], options: dict[str, Any], has_retain: bool, where: str) -> Composed:
    """Resolve {ilu: {inner: X, ...}}: X with this update."""
    inner = options.pop("inner")
    parts = _parts_of(inner, f"{where}.{plugin.name}.inner", plugin.card.ignores)
    if "update" in parts and parts["update"] not in (None, "none", "plain"):
        raise BadInput.of(
            f"{where}.{plugin.name}.inner.update",
            parts["update"],
            f"is a second update, in addition to {plugin.name}",
            "leave one out",
        )
    parts["update"] = {plugin.name: options}
    return compose(parts, has_retain=has_retain, where=where)


def _parts_of(spec: Any, where: str, ignored: Iterable[str]) -> dict[str, Any]:
    """Write an inner objective out as parts, so that its update can be set; ignored: the recipe's keys to leave out."""
    if isinstance(spec, Mapping) and set(spec) & set(PARTS):
        return dict(spec)
    name, options = next(iter(spec.items())) if isinstance(spec, Mapping) and len(spec) == 1 else (spec, None)
    known = {name for name, kind in every_method().items() if kind in ("recipe", "objective")}
    if not isinstance(name, str) or name not in known:
        raise BadInput.of(where, name, "is not an objective, and an update needs one inside", did_you_mean(name, known))
    options = _mapping(options, f"{where}.{name}", name)
    recipe = recipes()[name] if name in recipes() else {"forget": name, **load("objectives", name).recipe}
    return {**{k: v for k, v in recipe.items() if k not in {*ABOUT, *ignored}}, **options}


def _whole(plugin: Plugin[MethodCard], options: dict[str, Any], has_retain: bool, where: str) -> Composed:
    """Resolve an edit, wrapper, guard or exact scheme."""
    options = {**plugin.recipe, **options}
    budget, options = split_budget(options, set(plugin.options()))
    inner = None
    if "inner" in plugin.options():
        inner = _inner(plugin, options.get("inner", "npo"), has_retain, f"{where}.{plugin.name}.inner")
        options["inner"] = inner.method
    values = plugin.validate(options, f"{where}.{plugin.name}")
    described = {k: v for k, v in values.items() if k != "inner"} | ({"inner": inner.described} if inner else {})
    method = plugin.factory(**values)
    return Composed(
        plugin.name,
        SINGULAR[plugin.kind],
        method if isinstance(method, Method) else Method(method),
        [plugin, *(inner.plugins if inner else [])],
        {plugin.name: described},
        request.parse(Budget, budget, f"{where}.{plugin.name}").over(inner.budget if inner else Budget()),
        inner.notes if inner else [],
        inner,
        plugin.card.yields,
    )


def _inner(plugin: Plugin[MethodCard], spec: Any, has_retain: bool, where: str) -> Composed:
    """Resolve the method inside a wrapper. Raises BadInput where the wrapper does not accept it."""
    inner = compose(spec, has_retain=has_retain, where=where)
    allowed = set(plugin.card.wraps)
    if allowed and inner.yields not in allowed and inner.kind not in allowed:
        raise BadInput.of(
            where,
            inner.name,
            f"yields {inner.yields}",
            f"{plugin.name} wraps methods that yield {' or '.join(sorted(allowed))}",
        )
    return inner


def _objective(
    given: dict[str, Any], recipe: Mapping[str, Any], has_retain: bool, where: str, name: str = ""
) -> Composed:
    """Resolve an objective given by parts, over a recipe."""
    spec = merge(given, recipe, has_retain, where, name)
    bound = bind(spec)
    return Composed(
        name or bound.title,
        "recipe" if spec.from_recipe else "objective",
        build(bound),
        list(bound.plugins.values()),
        bound.described,
        bound.budget,
        spec.notes,
    )
