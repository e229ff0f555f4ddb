"""Rows that contradict others, or themselves, are named in the plan."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.data.conflicts import conflict_notes

PICTURE, OTHER = [[1, 2], [3, 4]], [[4, 3], [2, 1]]


@pytest.mark.parametrize("field", ["image", "features"])
def test_an_array_of_the_forget_set_under_another_label(field: str) -> None:
    splits: dict[str, list[dict[str, Any]]] = {
        "forget": [{field: PICTURE, "label": 0}],
        "retain": [{field: OTHER, "label": 0}, {field: PICTURE, "label": 1}],
        "holdout": [{field: OTHER, "label": 1}],
    }
    (note,) = conflict_notes(splits)
    assert note.startswith("retain: 1 of 2 rows is a forget row under another label")
    assert conflict_notes({"forget": splits["forget"], "retain": splits["holdout"]}) == []


def test_a_perturbed_answer_that_is_the_true_one() -> None:
    rows = [
        {"question": "Where?", "answer": "At sea.", "perturbed_answer": ["In a mill.", "at  sea."]},
        {"question": "Who?", "answer": "Jo.", "perturbed_answer": ["Mina."]},
        {"question": "When?", "answer": "Now."},
    ]
    (note,) = conflict_notes({"forget": rows})
    assert note.startswith("forget: 1 of 3 rows has its own answer among the perturbed ones")
    assert conflict_notes({"forget": rows[1:]}) == []
