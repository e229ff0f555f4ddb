"""Facts of a card in words, as `expunge list` and the documentation show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_SHOWN = "Nothing: no claim of its paper was tested here."


def yaml_of(value: Any) -> str:
    """A value as it would be written in YAML."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(pairs(value))}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def place_of(equation: str) -> str:
    """The place in the paper, in words: a bare number is an equation's."""
    return f"equation {equation}" if equation.replace(",", "").replace(" ", "").isdigit() else equation


def pairs(mapping: Mapping[str, Any]) -> list[str]:
    """A recipe's parts and options, each as it would be written in YAML."""
    return [f"{key}: {yaml_of(value)}" for key, value in mapping.items()]


def fidelity_of(row: Mapping[str, Any]) -> str:
    """How near a method is to its paper, in words; "" of what is no method."""
    return ", without ".join(filter(None, (row.get("fidelity", ""), row.get("leaves_out", ""))))


def shown_of(row: Mapping[str, Any]) -> str:
    """The sentences on what was shown of a method on small models; "" of what is no method."""
    return str(row["shown"] or NOT_SHOWN) if "shown" in row else ""
