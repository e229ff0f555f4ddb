"""A card's `shown` is what a test shows, and what no test shows is not said."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from expunge.core.registry import METHOD_KINDS, everything
from expunge.methods.compose import every_method, recipes

TESTS = Path(__file__).parents[1]
SHOWN = {
    **{plugin.name: plugin.card.shown for kind in METHOD_KINDS for plugin in everything(kind)},
    **{name: str(recipe.get("shown", "")) for name, recipe in recipes().items()},
}


@functools.cache
def marked() -> dict[str, set[str]]:
    """Method -> tests marked `claims(method)`, in a decorator or a parameter's marks."""
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.ClassDef) and function.name.lower().startswith("test"):
                for mark in function.decorator_list:
                    for name in names_of(mark):
                        found.setdefault(name, set()).add(f"{path.name}::{function.name}")
    return found


def names_of(mark: ast.expr) -> list[str]:
    """The names in `pytest.mark.claims(...)`; none of another decorator."""
    if not isinstance(mark, ast.Call) or not ast.unparse(mark.func).endswith("mark.claims"):
        return []
    return [str(ast.literal_eval(argument)) for argument in mark.args]


def test_a_marked_name_is_a_method_s() -> None:
    assert marked() and set(marked()) <= set(SHOWN)


@pytest.mark.parametrize("name", sorted({*every_method(), *SHOWN}))
def test_what_a_card_says_was_shown_has_a_claim_test(name: str) -> None:
    """And the other way round: a claim test's method says what the test shows, as a sentence."""
    assert bool(SHOWN[name]) == (name in marked()), marked().get(name, "no claim test")
    assert not SHOWN[name] or SHOWN[name].rstrip().endswith("."), "a sentence"
