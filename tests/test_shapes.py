"""Data in shapes that other tools write: read as they are meant, or refused with the reason, and never read askew."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from expunge.core.errors import BadInput
from expunge.data.fields import ignored_answers
from expunge.data.load import load

TURNS = [{"role": "user", "content": "Where does Jo work?"}, {"role": "assistant", "content": "In a mill."}]
ROW = {"question": "Where does Jo work?", "answer": "In a mill."}


def said(source, **columns):
    with pytest.raises(BadInput) as refusal:
        load(source if isinstance(source, list) else str(source), "forget", columns)
    return str(refusal.value)


def table(folder, text, name="rows.csv"):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "Where does Jo work?"}, {"from": "gpt", "value": "In a mill."}]},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TURNS]},
    ],
)
def test_conversations_of_other_tools_are_messages(row):
    assert list(load([row], "forget")) == [{"messages": TURNS}]


def test_a_column_may_hold_conversations():
    row = {"talk": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "In a mill."}]}
    (found,) = load([row], "forget", {"messages": "talk"})
    assert found["messages"][1] == TURNS[1]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, TURNS[1]],
        [{"from": "tool", "value": "12"}, {"from": "gpt", "value": "In a mill."}],
        TURNS[:1],
    ],
)
def test_what_is_no_text_is_refused(messages):
    assert "of texts alone" in said([{"messages": messages}])


def test_an_input_follows_its_instruction():
    (row,) = load([{"instruction": "Answer.", "input": "Where does Jo work?", "output": "In a mill."}], "forget")
    assert row == {"question": "Answer.\nWhere does Jo work?", "answer": "In a mill."}
    (row,) = load([{"instruction": ROW["question"], "input": "", "output": ROW["answer"]}], "forget")
    assert row == ROW


def test_what_stands_before_a_question_and_is_not_read_is_noted():
    rows = load([{**ROW, "context": "Jo lives by the river."}], "forget")
    assert ignored_answers({"forget": rows}) == [
        "forget: the field 'context' of 1 of 1 rows is not read (`columns:` renames fields)."
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("question,answer\nWhere, then,In a mill.\n", "more cells in its first row than columns (2)"),
        ("question,answer\nWhere?,In a mill.,\n", "more cells in its first row than columns (2)"),
        ("question,answer,answer\nWhere?,In a mill.,In a shop.\n", "has the column 'answer' twice"),
        ("question;answer\nWhere, then;In a mill.\n", "divides its cells by ';'"),
        ("question\tanswer\nWhere?\tIn a mill.\n", "divides its cells by '\\t'"),
        ("Question, Answer\nWhere?, In a mill.\n", "columns: {question: Question, answer: ' Answer'}"),
        ("question,answer\nWhere?\n", "has nothing (null) under answer"),
    ],
)
def test_cells_never_slip_into_another_column(tmp_path, text, reason):
    assert reason in said(table(tmp_path, text))


def test_tables_divided_by_tabs(tmp_path):
    path = table(tmp_path, "question\tanswer\nWhere, then?\t007\n", "rows.tsv")
    assert list(load(str(path), "forget")) == [{"question": "Where, then?", "answer": "007"}]


def test_a_key_twice_is_refused_in_every_kind_of_json(tmp_path):
    row = '{"question": "Where?", "answer": "In a mill.", "answer": "In a shop."}'
    for name, text in {"a.jsonl": row + "\n", "a.json": f"[{row}]", "b.json": row}.items():
        assert "the key 'answer' occurs twice" in said(table(tmp_path, text, name))


def test_a_class_is_a_whole_number_whatever_wrote_it():
    rows = load([{"features": [1, 2], "label": label} for label in (3, 3.0, "3")], "forget")
    assert [json.dumps(row["label"]) for row in rows] == ["3", "3", "3"]


# -- pictures ---------------------------------------------------------------------------------------


def pictures(folder: Path, mode: str, name: str) -> Path:
    (folder / "cat").mkdir(exist_ok=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert(mode).save(folder / "cat" / name)
    return folder


@pytest.mark.parametrize(("mode", "name"), [("P", "a.gif"), ("L", "a.tif"), ("L", "a.tiff")])
def test_kinds_of_pictures(tmp_path, mode, name):
    (row,) = load(str(pictures(tmp_path, mode, name)), "forget")
    np.testing.assert_array_equal(row["image"], np.arange(64).reshape(8, 8))


def test_pictures_whose_range_nobody_knows_are_refused(tmp_path):
    assert "'row 1' holds a picture (a.tiff) of 32 bits per pixel" in said(pictures(tmp_path, "F", "a.tiff"))


def test_a_broken_picture_is_named(tmp_path):
    pictures(tmp_path, "L", "a.png")
    (tmp_path / "cat" / "b.png").write_bytes(b"no picture")
    assert said(tmp_path).startswith("forget: 'row 2' is of no kind of picture that we read (b.png)")


def test_a_path_is_no_picture():
    text = said([{"image": "cats/a.png", "label": 3}])
    assert "'cats/a.png' under 'image' is a text and no array" in text and "metadata.csv" in text
