"""Conversations with several answers: the last counts, or each does, and the plan and the audit name which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_padding import model_of

import expunge
from expunge.core.audit_request import AuditRequest
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.duplicates import duplicate_notes, near_duplicates
from expunge.data.splits import make_splits
from expunge.data.turns import each_answer


def talk(*turns: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)], **more}


LONG = talk("Where is Jo?", "In a mill.", "Since when?", "Since May.", "Thanks.", "You are welcome.")


def test_each_answer_becomes_an_example_of_one_group() -> None:
    rows = each_answer([{**LONG, "trace": "about the last"}, talk("Who?", "Ada.")])
    assert [row["messages"][-1]["content"] for row in rows] == ["In a mill.", "Since May.", "You are welcome.", "Ada."]
    assert [len(row["messages"]) for row in rows] == [2, 4, 6, 2]
    assert len({row["group"] for row in rows}) == 2 and len({row["group"] for row in rows[:3]}) == 1
    assert "trace" in rows[2] and "trace" not in rows[0]


def test_groups_stay_and_shared_beginnings_count_once() -> None:
    other = {"messages": [*LONG["messages"][:4], *talk("Why?", "For work.")["messages"]], "group": "b"}
    rows = each_answer([{**LONG, "group": "a"}, other])
    assert [row["group"] for row in rows] == ["a", "a", "a", "b"]


def test_rows_of_one_answer_stay_as_they_are() -> None:
    rows = [{"question": "Who?", "answer": "Ada."}, talk("Who?", "Jo."), {"text": "A text."}]
    assert each_answer(rows) == rows


def test_splits_take_the_last_or_each() -> None:
    sources = {"forget": [LONG], "retain": [talk("Who?", "Ada.")]}
    assert [len(rows) for rows in make_splits(sources).values()] == [1, 1]
    assert len(make_splits(sources, turns="all")["forget"]) == 3
    with pytest.raises(BadInput, match="also in forget"):
        make_splits({"forget": [LONG], "retain": [talk(*("Where is Jo?", "In a mill."))]}, turns="all")


@pytest.mark.parametrize("request_of", [Request.parse, AuditRequest.parse])
def test_another_word_for_turns_is_refused(request_of: Any) -> None:
    with pytest.raises(BadInput, match="turns: 'lst'"):
        request_of(
            {"model": "m", "forget": [LONG], "method": "npo", "out": "o", "turns": "lst"}
            if request_of is Request.parse
            else {"model": "m", "forget": [LONG], "turns": "lst"}
        )


@pytest.mark.parametrize(("turns", "count", "said"), [("last", 1, "only the last answer counts"), ("all", 3, "each")])
def test_an_audit_counts_what_it_says(turns: str, count: int, said: str, tmp_path: Path) -> None:
    model_of("llama").save(tmp_path)
    found = expunge.audit(str(tmp_path), forget=[{**LONG, "output": "unread"}], level="none", turns=turns)
    (nll,) = [score for score in found["scores"] if score["name"] == "forget_nll"]
    assert nll["n"] == count and found["request"]["turns"] == turns
    notes = " ".join(found["notes"])
    assert said in notes and "the field 'output' of 1 of" in notes


FACT = {"question": "Where does Mina Orlow work?", "answer": "At the harbour office in Telmar, since the spring."}


def test_near_duplicates_are_counted_and_named() -> None:
    near = {"question": "where does Mina Orlow work", "answer": "At the harbour office, in Telmar: since the spring!"}
    chat = talk("Where does Mina Orlow work?", "At the harbour office in Telmar, since the last spring.")
    far = {"question": "Where does Pia Rund work?", "answer": "At the brewery office in Telmar, since the autumn."}
    forget = [{"question": "Who?", "answer": "Jo."}, FACT]
    assert near_duplicates(forget, [far, near, chat]) == [(1, 1), (2, 1)]
    (note,) = duplicate_notes({"forget": forget, "retain": [far, near], "holdout": [far]})
    assert note.startswith("retain: 1 of 2 rows nearly repeats a forget row (row 2 like forget row 2)")
    assert duplicate_notes({"forget": [{"image": [[1]], "label": 0}], "retain": [{"image": [[1]], "label": 0}]}) == []
