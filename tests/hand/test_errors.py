"""The one form of an error message: field, value, reason, fix."""

from __future__ import annotations

import pytest

from expunge.core.errors import BadInput, did_you_mean
from expunge.core.registry import load


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (("out", "runs/a", "is in use", "choose another folder"), "out: 'runs/a' is in use; choose another folder."),
        (("seed", -1, "is negative", "give a number from 0 up!"), "seed: -1 is negative; give a number from 0 up!"),
        (("data", "", "is missing", "add data: FILE"), "data: is missing; add data: FILE."),
        (
            ("method", "npoo", "unknown method", did_you_mean("npoo", ["npo", "rmu"])),
            "method: unknown method 'npoo'; did you mean 'npo'?",
        ),
        (("kind", "x", "unknown kind", did_you_mean("x", ["b", "a"])), "kind: unknown kind 'x'; known: a, b."),
        (("a\nb", "x", "is\nbroken", "fix\x1bit"), "a b: 'x' is broken; fix\\x1bit."),
    ],
)
def test_the_sentence_of_a_fault(parts: tuple[str, object, str, str], sentence: str) -> None:
    assert str(BadInput.of(*parts)) == sentence


def test_an_empty_text_is_shown_on_request() -> None:
    assert str(BadInput.of("model", "", "is empty", "give a name", empty=True)) == "model: '' is empty; give a name."


def test_an_unknown_plugin_is_named_with_its_nearest_neighbour() -> None:
    with pytest.raises(BadInput) as caught:
        load("objectives", "npoo", "method.forget")
    assert str(caught.value) == "method.forget: unknown objective 'npoo'; did you mean 'npo'?"
