"""The tables of `expunge list` and of the documentation: the registry's cards, one row each or one in full."""

from __future__ import annotations

import types
import typing
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

from expunge.core.card import AttackCard, Card, DetectorCard, MethodCard, MetricCard
from expunge.core.card_words import place_of, yaml_of
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.registry import METHOD_KINDS, SINGULAR, Plugin, everything, load
from expunge.methods.compose import ABOUT, every_method, recipes
from expunge.models.family import Family, families

TYPES = {float: "number", int: "whole number", bool: "true or false", str: "text", type(None): "none", list: "list"}
SIGNS = ((Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<="))


def catalogue(what: str) -> list[dict[str, Any]]:
    """Rows {name, kind, source, families, needs, summary} of methods, metrics, attacks, recipes, model
    families, out-of-distribution scores ("ood"), detectors, protections of pictures or strategies of federations.

    A row of an attack has its `adversary` too.
    Methods and recipes also have `fidelity` to their paper, and `leaves_out`.
    """
    if what == "models":
        return [_family_row(one) for one in families()]
    if what == "recipes":
        return [row for row in catalogue("methods") if row["kind"] == "recipe" or _has_recipe(row)]
    if what in ("metrics", "attacks", "ood", "detectors", "protections", "strategies"):
        return [_row(p.name, SINGULAR[p.kind], p.card, p.summary) for p in everything(what)]
    found = []
    for name, kind in sorted(every_method().items()):
        if kind == "recipe":
            parts = recipes()[name]
            cards = [
                load("objectives" if part == "forget" else part, str(parts[part])).card
                for part in ("forget", "retain")
                if parts.get(part)
            ]
            row = _row(name, kind, cards[0], parts["summary"])
            row["source"] = parts["source"]
            row["needs"] = sorted({need for card in cards for need in sorted(card.sources)})
            row |= {key: parts.get(key, "") for key in ("fidelity", "leaves_out")}
        else:
            plugin = load(next(k for k in METHOD_KINDS if SINGULAR[k] == kind), name)
            row = _row(name, kind, plugin.card, plugin.summary)
        found.append(row)
    return found


def details(what: str, name: str) -> dict[str, Any]:
    """One row of the catalogue with all that its card says; raises BadInput for an unknown name."""
    rows = {row["name"]: row for row in catalogue(what)}
    if name not in rows:
        raise BadInput.of(f"list {what}", name, "is not among them", did_you_mean(name, rows))
    row = rows[name]
    if what == "models":
        return {**row, "title": row["summary"], "equation": "", "means": "", "options": [], "recipe": {}}
    if row["kind"] == "recipe":
        recipe = {key: value for key, value in recipes()[name].items() if key not in ABOUT}
        shown = str(recipes()[name].get("shown", ""))
        given = {"title": row["summary"], "equation": "", "means": "", "shown": shown, "options": [], "recipe": recipe}
        return {**row, **given}
    return in_full(load(next(kind for kind, single in SINGULAR.items() if single == row["kind"]), name))


def in_full(plugin: Plugin) -> dict[str, Any]:
    """A plug-in's row with all that its card says."""
    card = plugin.card
    return {
        **_row(plugin.name, SINGULAR[plugin.kind], card, plugin.summary),
        "title": card.title,
        "equation": place_of(card.equation),
        **{key: getattr(card, key) if isinstance(card, MetricCard) else "" for key in ("side", "better", "unit")},
        "means": card.means,
        **({"shown": card.shown, "distributed": card.distributed} if isinstance(card, MethodCard) else {}),
        "options": options(plugin),
        "recipe": plugin.recipe,
    }


def options(plugin: Plugin) -> list[dict[str, str]]:
    """Each option {name, default, type, where}, in words; of an exact scheme also those of its training."""
    found = []
    for factory, known, where in (
        (plugin.factory, plugin.options(), ""),
        (getattr(plugin.module, "train", None), plugin.training(), "in train.yaml"),
    ):
        hints = typing.get_type_hints(factory, include_extras=True) if known else {}
        for name, parameter in known.items():
            given = parameter.default is not parameter.empty
            default = yaml_of(parameter.default) if given else "(required)"
            found.append({"name": name, "default": default, "type": words(hints[name]), "where": where})
    return found


def words(hint: Any) -> str:
    """A type with its bounds, in words."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *marks = typing.get_args(hint)
        bounds = [
            f"{sign} {getattr(mark, key):g}" for mark in marks for kind, key, sign in SIGNS if isinstance(mark, kind)
        ]
        return " ".join([words(inner), *([" and ".join(bounds)] if bounds else [])])
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(words(part) for part in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    return TYPES.get(kind, "method" if getattr(kind, "__name__", "") == "Method" else str(kind))


def _has_recipe(row: dict[str, Any]) -> bool:
    kind = next((k for k in METHOD_KINDS if SINGULAR[k] == row["kind"]), None)
    return kind is not None and hasattr(load(kind, row["name"]).module, "RECIPE")


def _row(name: str, kind: str, card: Card, summary: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "source": card.paper,
        "families": _families(kind, card),
        "needs": sorted(card.sources),
        "summary": summary,
        **({"adversary": card.adversary} if isinstance(card, AttackCard) else {}),
        **(
            {"fidelity": card.fidelity, "leaves_out": card.leaves_out}
            if isinstance(card, MethodCard | DetectorCard)
            else {}
        ),
    }


def _families(kind: str, card: Card) -> list[str]:
    # How a model must have been trained says nothing of its family.
    needed = {name for name in card.capabilities if name != "shards" and not name.startswith("exact:")}
    able = [one for one in families() if one.weights or kind == "exact" or not isinstance(card, MethodCard)]
    return sorted(one.name for one in able if needed <= one.capabilities and _channels(card) <= one.gives)


def _channels(card: Card) -> set[str]:
    """The channels that a loss term asks for; metrics and attacks say for themselves what was not measured."""
    parts = [*card.needs.values(), *card.reference.values()] if isinstance(card, MethodCard) else []
    return {channel.partition(":")[0] for part in parts for channel in part} - {"hidden"}


def _family_row(found: Family) -> dict[str, Any]:
    forms = [" and ".join(form) for form in found.example_forms]
    return {
        "name": found.name,
        "kind": "model family",
        "source": "",
        "families": [found.name],
        "needs": [],
        "summary": f"A {found.title}; examples have {', or '.join(forms)}.",
    }
