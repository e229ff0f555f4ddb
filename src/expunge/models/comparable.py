"""Two models whose figures are held against each other: they must read an example as the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput

ROWS = 64
"""Examples by which two tokenizers are compared."""


def terms_of(model: Any, rows: Sequence[Example]) -> dict[str, Any]:
    """What a model takes examples for, in words: how it divides their answers, and how it numbers classes."""
    found = getattr(model, "terms", None)  # a family of another package need not have it
    return dict(found(rows[:ROWS])) if found is not None else {}


def check_terms(model: Any, terms: dict[str, Any], rows: Sequence[Example], field: str, source: str) -> None:
    """Raises BadInput where a model reads the rows otherwise than the one with these terms does.

    A likelihood per token of other tokens, or an accuracy on classes in another order, would be compared with it.
    """
    ours = terms_of(model, rows)
    if other := next((name for name, value in ours.items() if terms.get(name, value) != value), ""):
        fix = "give a model with the same tokenizer, or the same classes in the same order"
        raise BadInput.of(field, source, f"does not have the {other} of the model that it is compared with", fix)
