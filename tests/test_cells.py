"""Cells that look otherwise than they are: read as they are meant, or refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from expunge.core.errors import BadInput
from expunge.data.content import content_key
from expunge.data.examples import identity
from expunge.data.fields import ignored_answers
from expunge.data.load import load

ROW = {"question": "Where does Jo work?", "answer": "In a mill."}


def one(row: dict[str, Any]) -> dict[str, Any]:
    (found,) = load([row], "forget")
    return dict(found)


def said(row: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as refusal:
        load([row], "forget")
    return str(refusal.value)


@pytest.mark.parametrize("name", ["perturbed_answer", "paraphrased_answer", "paraphrased_question"])
def test_a_list_in_a_cell_is_a_list(name: str) -> None:
    assert one({**ROW, name: '["In a shop.", "Nowhere."]'})[name] == ["In a shop.", "Nowhere."]
    assert one({**ROW, name: "[sic] In a shop."})[name] == ["[sic] In a shop."]


@pytest.mark.parametrize("text", ["['In a shop.', 'Nowhere.']", "['In a shop.' 'Nowhere.']", '["It\'s shut." "No."]'])
def test_a_list_as_python_prints_it_is_refused(text: str) -> None:
    assert "is a list as Python prints it; write it as JSON" in said({**ROW, "perturbed_answer": text})


@pytest.mark.parametrize("text", ["\u200b\ufeff", " \u2060\n", "\u00ad", "\0"])
def test_a_text_that_nobody_sees_is_empty(text: str) -> None:
    assert "'answer' is empty" in said({**ROW, "answer": text})


def test_a_mark_of_width_zero_makes_no_other_example() -> None:
    hidden = {**ROW, "question": "Where does J\u00ado\u200b work?"}
    assert content_key(hidden) == content_key(ROW) and identity(hidden) != identity(ROW)


def test_an_empty_cell_that_pandas_wrote_is_no_group() -> None:
    (path,) = (json.loads('{"question": "Who?", "answer": "Jo.", "group": NaN}'),)
    assert "group" not in one(path)


def test_a_class_that_numpy_numbered_is_the_same_example() -> None:
    rows = load([{"features": [1, 2], "label": label} for label in (3, np.int64(3), np.float32(3))], "forget")
    assert len({identity(row) for row in rows}) == 1


@pytest.mark.parametrize(("role", "meant"), [("usr", "user"), ("User", "user"), ("human", "user"), ("sytem", "system")])
def test_a_role_that_no_template_knows_is_refused(role: str, meant: str) -> None:
    turns = [{"role": role, "content": "Where?"}, {"role": "user", "content": "So?"}]
    assert f"did you mean '{meant}'?" in said({"messages": [*turns, {"role": "assistant", "content": "In a mill."}]})


def test_roles_of_a_kind_of_their_own_are_left_to_the_template() -> None:
    turns = [{"role": role, "content": "x"} for role in ("developer", "ipython", "observation", "tool")]
    assert (
        one({"messages": [*turns, {"role": "assistant", "content": "In a mill."}]})["messages"][1]["role"] == "ipython"
    )


def test_a_conversation_beside_question_and_answer_is_named_as_unread() -> None:
    talk = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Let me think."}]
    rows = load([{**ROW, "messages": talk, "text": "Where? In a mill."}], "forget")
    assert [note.split("'")[1] for note in ignored_answers({"forget": rows})] == ["text", "messages"]
