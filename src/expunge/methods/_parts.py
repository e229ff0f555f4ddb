"""An objective from its parts: merge the request over a recipe, bind the options, build the terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.core import request
from expunge.core.budget import Budget
from expunge.core.card import MethodCard
from expunge.core.contracts import Term, Update
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.registry import SINGULAR, Plugin, load, names
from expunge.methods._sum import Sum
from expunge.methods.objective import Objective

PARTS = {
    "forget": "objectives",
    "beside": "objectives",
    "retain": "retain",
    "weights": "weights",
    "update": "updates",
}
"""Part of a method -> kind of its plug-ins. beside: a second forget term, which is added to the first."""
OWN = ("forget_weight", "beside_weight", "alpha")
"""Keys of an objective that belong to none of its parts: the weights of its terms."""
ABOUT = ("source", "summary", "fidelity", "leaves_out", "shown")
"""Keys of a recipe that describe it."""
DEFAULT_PARTS = {"weights": "all", "update": "plain"}


@dataclass
class MethodSpec:
    """Parts and options of an objective as merged; nothing is loaded or checked yet."""

    name: str
    """Of the recipe or the objective; empty where the request gives the parts."""
    where: str
    given: Mapping[str, Any]
    """What the request says itself."""
    options: dict[str, Any]
    from_recipe: bool
    notes: list[str] = field(default_factory=list)


@dataclass
class BoundMethod:
    """Plug-ins of an objective with the validated options of each."""

    plugins: dict[str, Plugin[MethodCard]]
    options: dict[str, dict[str, Any]]
    weights: dict[str, float]
    budget: Budget

    @property
    def described(self) -> dict[str, Any]:
        """The parts as resolved, for request.yaml and the report."""
        return {part: {plugin.name: self.options[part]} for part, plugin in self.plugins.items()} | self.weights

    @property
    def title(self) -> str:
        """Names of the loss terms."""
        return " + ".join(self.plugins[part].name for part in ("forget", "beside", "retain") if part in self.plugins)


def merge(given: dict[str, Any], recipe: Mapping[str, Any], has_retain: bool, where: str, name: str) -> MethodSpec:
    """Put what is given over the recipe, by default the objective's own.

    Raises BadInput where retain data are needed and missing; a recipe's own retain term is dropped with a note.
    """
    if not recipe and isinstance(given.get("forget"), str) and given["forget"] in names("objectives"):
        own = load("objectives", given["forget"], f"{where}.forget").recipe
        recipe = {k: v for k, v in own.items() if k not in PARTS or k == "weights"}
    parts = {key: value for key, value in recipe.items() if key not in ABOUT}
    spec = MethodSpec(name, where, given, {**parts, **given}, from_recipe=bool(recipe))
    if spec.options.get("retain") in (None, "none") or has_retain:
        return spec
    if "retain" in given:
        raise BadInput.of(
            f"{where}.retain",
            str(given["retain"]),
            "needs retain data, and there is none",
            "add retain: FILE, or leave the term out",
        )
    if spec.options.get("forget") in (None, "none") or spec.options.get("forget_weight") == 0:
        raise BadInput.of(
            where,
            name,
            "trains on retain data alone, and there is none",
            "add retain: FILE, or choose another method",
        )
    spec.notes.append(f"No retain data: the recipe's retain term {spec.options['retain']!r} was dropped.")
    spec.options["retain"] = None
    return spec


def bind(spec: MethodSpec) -> BoundMethod:
    """Load the parts and validate the options of each. Raises BadInput with every fault."""
    plugins, options = _load_parts(spec)
    faults = Faults()
    taken = {option for plugin in plugins.values() for option in plugin.options()}
    budget_fields, rest = split_budget(spec.options, taken)
    for option, value in rest.items():
        if option in PARTS or option in OWN:
            continue
        takers = [part for part, plugin in plugins.items() if option in plugin.options()]
        for part in takers:
            options[part].setdefault(option, value)
        if not takers and option in spec.given:
            known = {*taken, *PARTS, *OWN}
            faults.add(BadInput.of(f"{spec.where}.{option}", option, "unknown option", did_you_mean(option, known)))
    values = {}
    for part, plugin in plugins.items():
        with faults:
            values[part] = plugin.validate(options[part], f"{spec.where}.{part}")
    weights = {}
    unused = {key: f"changes nothing under {plugins['update'].name}" for key in plugins["update"].card.ignores}
    if "beside" not in plugins:
        unused["beside_weight"] = "weighs no term, since none stands beside the forget term"
    for key in OWN:
        with faults:
            weights[key] = _weight(spec.options.get(key, 1.0), f"{spec.where}.{key}")
        if key in unused and key in spec.given:
            fix = "leave it out, or choose other parts"
            faults.add(BadInput.of(f"{spec.where}.{key}", spec.given[key], unused[key], fix))
    weights = {key: value for key, value in weights.items() if key not in unused}
    budget = Budget()
    with faults:
        budget = request.parse(Budget, budget_fields, spec.where)
    faults.raise_any()
    return BoundMethod(plugins, values, weights, budget)


def build(bound: BoundMethod) -> Objective:
    """Call the factories, and put their terms, weights and update together."""
    terms = {}
    for part, weight in (("forget", "forget_weight"), ("retain", "alpha")):
        if part in bound.plugins:
            plugin = bound.plugins[part]
            loss = plugin.factory(**bound.options[part])
            terms[part] = Term.of(plugin.name, loss, plugin.card, bound.weights.get(weight, 1.0))
    if "beside" in bound.plugins:
        terms["forget"] = _with_second(terms["forget"], bound)
    update = bound.plugins["update"].factory(**bound.options["update"])
    return Objective(
        terms,
        bound.plugins["weights"].factory(**bound.options["weights"]),
        update if isinstance(update, Update) else Update(update),
        bound.budget,
        math.prod(getattr(plugin.module, "RATE", 1.0) for plugin in bound.plugins.values()),
        anchor="forget" if "forget" in terms else "retain",
    )


def _with_second(first: Term, bound: BoundMethod) -> Term:
    """The forget term with the one beside it. Raises BadInput where both make examples of one name."""
    plugin = bound.plugins["beside"]
    loss = plugin.factory(**bound.options["beside"])
    second = Term.of(plugin.name, loss, plugin.card, bound.weights["beside_weight"])
    return Term(f"{first.name} + {second.name}", Sum(first, second, "method.beside"), first.card, first.weight)


def split_budget(options: Mapping[str, Any], taken: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options into (fields of the budget, the rest); a part's own option of the same name wins."""
    fields = {k: v for k, v in options.items() if k in Budget.model_fields and k not in taken}
    return fields, {k: v for k, v in options.items() if k not in fields}


def _load_parts(spec: MethodSpec) -> tuple[dict[str, Plugin[MethodCard]], dict[str, dict[str, Any]]]:
    """Load (part -> plug-in, part -> the options written under it). Raises BadInput."""
    faults = Faults()
    plugins: dict[str, Plugin[MethodCard]] = {}
    options: dict[str, dict[str, Any]] = {}
    for part, kind in PARTS.items():
        with faults:
            if found := _load_part(spec.options.get(part), kind, f"{spec.where}.{part}"):
                plugins[part], options[part] = found
    for part, default in DEFAULT_PARTS.items():
        if part not in plugins and spec.options.get(part) in (None, "none"):
            plugins[part], options[part] = load(PARTS[part], default), {}
    faults.raise_any()
    if "beside" in plugins and "forget" not in plugins:
        fix = "name it under forget, or add forget: NAME"
        raise BadInput.of(f"{spec.where}.beside", plugins["beside"].name, "stands beside no forget term", fix)
    if "forget" not in plugins and "retain" not in plugins:
        raise BadInput.of(
            spec.where,
            spec.name or str(spec.given),
            "has neither a forget nor a retain term",
            "name one: " + ", ".join(names("objectives")),
        )
    return plugins, options


def _load_part(value: Any, kind: str, where: str) -> tuple[Plugin[MethodCard], dict[str, Any]] | None:
    """Load a part written as `name` or `{name: {options}}`; None for none. Raises BadInput."""
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        return load(kind, value, where), {}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, options),) = value.items()
        if options is None or isinstance(options, Mapping):
            return load(kind, str(name), where), dict(options or {})
    raise BadInput.of(where, value, f"does not name one {SINGULAR[kind]}", "write name, or {name: {option: value}}")


def _weight(value: Any, where: str) -> float:
    """Check the weight of a loss term. Raises BadInput."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise BadInput.of(where, value, "is not a weight", "give a number from 0 to 1e9")
    return float(value)
