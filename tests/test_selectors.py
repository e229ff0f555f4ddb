"""Selectors: what they name goes as a whole, however the rows and the request write it, or they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.core.documents import parse_yaml
from expunge.core.errors import BadInput
from expunge.data.splits import make_splits


def rows(*values: Any) -> list[dict[str, Any]]:
    return [{"question": f"Who is {i}?", "answer": f"The one of {i}.", "by": value} for i, value in enumerate(values)]


def selected(wanted: Any, *values: Any) -> list[int]:
    data = rows(*values)
    return [data.index(row) for row in make_splits({"data": data, "forget": {"where": {"by": wanted}}})["forget"]]


@pytest.mark.parametrize(
    ("wanted", "values", "places"),
    [
        ("1984", (1984, "1984", 1984.0, 1985), [0, 1, 2]),
        (1984, (1984, "1984", "1984.0", "01984", 1984.5), [0, 1, 2]),
        (True, (True, "true", "True ", 1, "yes"), [0, 1, 2]),
        ("true", (True, "TRUE", False), [0, 1]),
        ("José", ("José", "Jose\u0301", " José ", "Jose"), [0, 1, 2]),
        ("10", ("10", "010", 10), [0, 2]),
        (["NO", 3], ("NO", "3", "SE"), [0, 1]),
    ],
)
def test_a_value_is_found_however_it_is_written(wanted: Any, values: Any, places: list[int]) -> None:
    """A row that is not found stays in retain, and what it says is trained on."""
    assert selected(wanted, *values) == places


@pytest.mark.parametrize("wanted", [["SE", "XX"], ["SE", False], ["SE", 7]])
def test_each_value_of_a_list_selects_something(wanted: Any) -> None:
    with pytest.raises(BadInput, match="selects no example by by; by takes: NO, SE"):
        selected(wanted, "NO", "SE")


def test_each_class_and_each_concept_of_a_list_selects_something() -> None:
    data = [{"features": [i, 1], "label": i} for i in range(3)]
    with pytest.raises(BadInput, match=r"forget.class: 7 selects no example"):
        make_splits({"data": data, "forget": {"class": [0, 7]}})
    drawn = [{"image": [[i, 1]], "label": i, "class_prompt": name} for i, name in enumerate(("red disc", "blue bar"))]
    with pytest.raises(BadInput, match=r"forget.concept: 'red bar' selects no example"):
        make_splits({"data": drawn, "forget": {"concept": ["red disc", "red bar"]}})


def test_a_word_that_yaml_takes_for_a_truth_value_is_named() -> None:
    """`country: NO` is false to YAML."""
    with pytest.raises(BadInput, match="put such a word in quotes"):
        selected(False, "NO", "SE")


@pytest.mark.parametrize("text", ["010", "-012", "007", "12:30", "1:2:3", "00.5"])
def test_numbers_in_other_bases_than_ten_are_refused(text: str) -> None:
    """`class: 010` would be class 8, and `at: 12:30` 750."""
    with pytest.raises(ValueError, match=r"line 1: .* put it in quotes"):
        parse_yaml(f"a: {text}")
    assert parse_yaml(f"a: '{text}'") == {"a": text}


def test_numbers_as_people_write_them() -> None:
    assert parse_yaml("a: [0, -0.5, 0x1F, 1_000, .5, 08, 1e-4, 2024-01-01]")["a"] == [
        *(0, -0.5, 31, 1000, 0.5),
        *("08", "1e-4", "2024-01-01"),
    ]
