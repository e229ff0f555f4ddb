"""Two models whose figures are held against each other: they must read an example as the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.data.examples import answer_of

ROWS = 64
"""Examples by which two tokenizers are compared."""


def terms_of(model: Any, rows: Sequence[Example]) -> dict[str, Any]:
    """In words -> value: how a model divides the answers of the rows into tokens, and how it numbers classes."""
    rows = rows[:ROWS]
    classes = getattr(model, "class_terms", None)  # of classifiers; a family of another package need not have it
    found = dict(classes(rows)) if classes is not None else {}
    if callable(tokenizer := getattr(model, "tokenizer", None)):
        texts = [answer_of(row) for row in rows]
        found["tokens"] = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
    return found


def check_terms(model: Any, terms: dict[str, Any], rows: Sequence[Example], field: str, source: str) -> None:
    """Raises BadInput where a model reads the rows otherwise than the one with these terms does.

    A likelihood per token of other tokens, or an accuracy on classes in another order, would be compared with it.
    """
    ours = terms_of(model, rows)
    if other := next((name for name, value in ours.items() if terms.get(name, value) != value), ""):
        fix = "give a model with the same tokenizer, or the same classes in the same order"
        raise BadInput.of(field, source, f"does not have the {other} of the model that it is compared with", fix)
