"""What `expunge list` and the documentation print: the registry's cards, a row each."""

from __future__ import annotations

from typing import Any

from expunge.core.card import Card
from expunge.core.registry import METHOD_KINDS, SINGULAR, everything, load
from expunge.methods.compose import every_method, recipes


def catalogue(what: str) -> list[dict[str, Any]]:
    """Rows {name, kind, source, families, needs, summary} of methods, metrics, attacks or recipes."""
    if what == "recipes":
        return [row for row in catalogue("methods") if row["kind"] == "recipe" or _has_recipe(row)]
    if what in ("metrics", "attacks"):
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
            row["needs"] = sorted({need for card in cards for need in _splits(card)})
        else:
            plugin = load(next(k for k in METHOD_KINDS if SINGULAR[k] == kind), name)
            row = _row(name, kind, plugin.card, plugin.summary)
        found.append(row)
    return found


def _has_recipe(row: dict[str, Any]) -> bool:
    kind = next((k for k in METHOD_KINDS if SINGULAR[k] == row["kind"]), None)
    return kind is not None and hasattr(load(kind, row["name"]).module, "RECIPE")


def _row(name: str, kind: str, card: Card, summary: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "source": card.paper,
        "families": _families(card),
        "needs": _splits(card),
        "summary": summary,
    }


def _splits(card: Card) -> list[str]:
    streams = {name: stream.split for name, stream in card.streams.items()}
    return sorted({streams.get(name, name) for name in (*card.needs, *card.origin)})


def _families(card: Card) -> list[str]:
    # How a model must have been trained says nothing of its family.
    needed = {name for name in card.capabilities if name != "shards" and not name.startswith("exact:")}
    has = {"causal_lm": {"tokens", "nll", "generate", "mlp"}, "classifier": {"labels", "nll"}}
    return [family for family, capabilities in has.items() if needed <= capabilities]
