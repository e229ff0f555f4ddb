"""The report's audit page: every attack against gold, attacks that could not run, and recovered texts."""

from __future__ import annotations

from typing import Any

from expunge.core import registry
from expunge.core.card import AttackCard
from expunge.report import _facts as facts
from expunge.report._examples import COMMON, _words, mark
from expunge.report._facts import Evidence, Row, Score

GROUPS = {
    "return": (
        "Bringing the knowledge back",
        "Each figure is the share of the forgotten knowledge that an attack recovers. A model that never "
        "saw the data also learns and guesses: only the part beyond gold was still in the weights. "
        "Nothing beyond gold means that these attacks, at these budgets, found nothing; stronger ones may.",
    ),
    "membership": (
        "Inferring membership",
        "How well an attacker tells the forget set from data that were never seen: 0.5 is guessing, and "
        "the aim is gold's figure, not a low one. Where the blind baseline is above 0.5 the sets differ "
        "by themselves, and no figure here can be read as memorisation.",
    ),
    "effects": (
        "Side effects of suppression",
        "A model that never saw the data does not react to their keywords. A figure that falls where gold's does not "
        "shows a method that looks at words.",
    ),
    "inside": (
        "Inside the weights",
        "Distance and similarity to other models. They show where a model was changed, not whether single "
        "facts are gone, and two independent retrainings differ in them too.",
    ),
}


def page(evidence: Evidence) -> dict[str, Any]:
    """Groups of attacks with their rows, the counts, and the recovered texts; no groups without an attack."""
    rows = {row.name: row for row in facts.table(evidence)}
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for plugin in registry.everything("attacks"):
        row = rows.get(f"{plugin.card.side}_{plugin.name}")
        if row is not None:
            groups[_group(plugin.card)].append(_line(plugin, row))
    shown: list[dict[str, Any]] = [
        {"title": GROUPS[name][0], "says": GROUPS[name][1], "rows": found} for name, found in groups.items() if found
    ]
    lines = [line for group in shown for line in group["rows"]]
    return {
        "groups": shown if any(line["level"] for line in lines) else [],
        "ran": sum(line["ran"] for line in lines),
        "idle": [line for line in lines if not line["ran"]],
        "beyond": [line["title"] for line in lines if line["verdict"] == "beyond gold"],
        "control": any(row.measured_score("gold") for row in rows.values()),
        "before": any(line["ran"] and line["cells"]["before"] for line in lines),
        "texts": _texts(evidence),
    }


def _group(card: Any) -> str:
    if card.side == "privacy":
        return "membership"
    if card.side == "utility":
        return "effects"
    return "return" if card.unit == "share" and card.better == "gold" else "inside"


def _line(plugin: registry.Plugin[AttackCard], row: Row) -> dict[str, Any]:
    ours, gold = row.measured_score("after"), row.measured_score("gold")
    missing = row.cells.get("after") or next(iter(row.cells.values()))
    return {
        "title": plugin.card.title,
        "name": row.name,
        "does": plugin.summary.replace("`", ""),
        "adversary": plugin.card.adversary,
        "level": plugin.card.level,
        "cells": {role: row.cells.get(role) for role in facts.ROLES},
        "ran": ours is not None,
        "why": "" if ours is not None else str(missing.get("why") or "no reason given"),
        "remark": str(ours.get("why") or "") if ours is not None else "",
        "gap": _gap(ours, gold),
        "verdict": "" if _group(plugin.card) in ("effects", "inside") else _verdict(ours, gold),
    }


def _gap(ours: Score | None, gold: Score | None) -> str:
    """After minus gold, signed."""
    if ours is None or gold is None or (ours.get("unit") or "") == "p-value":
        return ""
    return f"{ours['value'] - gold['value']:+.3f}"


def _verdict(ours: Score | None, gold: Score | None) -> str:
    """The two intervals' order in words; the paired differences of robustness_hidden are more sensitive."""
    if ours is None or gold is None or None in (ours.get("low"), gold.get("low")):
        return ""
    if ours["low"] > gold["high"]:
        return "beyond gold"
    return "below gold" if ours["high"] < gold["low"] else "like gold"


def _texts(evidence: Evidence) -> list[dict[str, Any]]:
    """By attack, the examples with the most recovered text; words of the true answer are marked."""
    hide = facts.is_redacted(evidence)
    titles = {plugin.name: plugin.card.title for plugin in registry.everything("attacks")}
    found = []
    for name, given in (evidence.get("attack_texts") or {}).items():
        examples = []
        for example in given:
            hidden = hide or bool(example.get("redacted"))
            question, answer = (str(example.get(key) or "") for key in ("question", "answer"))
            telling = _words(answer) - _words(question) - COMMON
            texts = (
                {}
                if hidden
                else {role: mark(str(text), telling) for role, text in (example.get("texts") or {}).items()}
            )
            examples.append(
                {
                    "redacted": hidden,
                    "question": "" if hidden else question,
                    "answer": "" if hidden else answer,
                    "recovered": example.get("recovered") or {},
                    "texts": texts,
                }
            )
        if examples:
            found.append({"title": titles.get(name, name), "examples": examples})
    return found
