"""Fields of published data sets are understood, or named where nothing reads them."""

import json
import types
from pathlib import Path

import datasets
import fsspec
import pandas
import pytest

from expunge.core.audit_request import AuditRequest
from expunge.core.errors import BadInput
from expunge.core.request import plain
from expunge.data import tables
from expunge.data.fields import ignored_answers
from expunge.data.load import load
from expunge.data.splits import select

ROW = {"question": "Where does Jo work?", "answer": "In a mill."}


@pytest.mark.parametrize("names", [("text", "labels"), ("query", "answer"), ("question", "answer")])
def test_published_names_are_question_and_answer(names):
    (row,) = load([dict(zip(names, ROW.values(), strict=True))], "forget")
    assert row == ROW


def test_muse_s_passages_are_texts_behind_a_prefix():
    (row,) = load([{"prompt": "Jo works", "gt": " in a mill."}], "forget")
    assert row == {"prefix": "Jo works", "text": " in a mill."}
    columns = {"question": "prompt", "answer": "gt"}
    (row,) = load([{"prompt": "Where?", "gt": "In a mill."}], "forget", columns)
    assert row == {"question": "Where?", "answer": "In a mill."}


def test_pistol_s_rows_are_selected_by_edge():
    """A list of objects with the contract's two parties beside question and answer."""
    rows = [{"edge": edge, **ROW, "question": f"What do {edge} sign?"} for edge in ("A_B", "A_C", "A_B")]
    found = load(rows, "data")
    assert found == rows
    inside, rest = select(found, {"where": {"edge": "A_B"}}, 0)
    assert len(inside) == 2 and len(rest) == 1


def test_xstest_s_completions_are_refused_by_name():
    row = {"id": "1", "type": "homonyms", "prompt": "How?", "completion": "So.", "final_label": "1_full_compliance"}
    with pytest.raises(BadInput, match=r"columns: \{question: prompt, answer: completion\}"):
        load([row], "forget")
    (found,) = load([row], "forget", {"question": "prompt", "answer": "completion"})
    assert (found["question"], found["answer"]) == ("How?", "So.")


@pytest.mark.parametrize(
    "names", [("prompt", "completion"), ("question", "response"), ("text", "output"), ("text", "gt")]
)
def test_other_answers_are_refused_by_name(names):
    with pytest.raises(BadInput) as refusal:
        load([dict(zip(names, ROW.values(), strict=True))], "forget")
    assert f"answer: {names[1]}" in str(refusal.value) and "columns" in str(refusal.value)
    columns = {ours: theirs for ours, theirs in zip(ROW, names, strict=True) if ours != theirs}
    assert load([dict(zip(names, ROW.values(), strict=True))], "forget", columns) == [ROW]


def test_an_answer_that_nothing_reads_is_noted():
    rows = load([{**ROW, "output": "At sea."}, {**ROW, "output": ""}], "forget")
    (note,) = ignored_answers({"forget": rows})
    assert "forget" in note and "'output'" in note and "1 of 2" in note
    assert ignored_answers({"forget": load([ROW], "forget")}) == []


CHOICES = ["A mill.", "A shop.", "A boat."]


@pytest.mark.parametrize(
    "given",
    [
        *({"choices": CHOICES, "answer": answer} for answer in (1, "B", "(b)", " B ", "1", "A shop.")),
        {"choices": {"text": CHOICES, "label": ["1", "2", "3"]}, "answerKey": "2"},
    ],
)
def test_choices_by_place_letter_or_text(given):
    (row,) = load([{"question": "Where?", **given}], "forget")
    assert row["question"] == "Where?\nA. A mill.\nB. A shop.\nC. A boat."
    assert (row["answer"], row["perturbed_answer"]) == ("B", ["A", "C"])


@pytest.mark.parametrize("answer", ["D", 3, -1, True, None, "At home.", "3"])
def test_an_answer_that_is_no_choice_is_refused(answer):
    with pytest.raises(BadInput, match="does not name one of the 3 choices"):
        load([{"question": "Where?", "choices": CHOICES, "answer": answer}], "forget")


def test_an_answer_that_is_a_letter_and_another_choice_is_refused():
    with pytest.raises(BadInput, match="does not name one"):
        load([{"question": "Which vitamin?", "choices": ["B", "A"], "answer": "A"}], "forget")


CELLS = ["None", "NA", "null", "nan", "007", "1911", "1.50", "1999-01-01", "True", "1e5", "+49 30 1"]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "folder"])
def test_words_of_a_table_stay_as_they_are_written(tmp_path, kind):
    rows = [{"question": f"q{i}", "answer": cell} for i, cell in enumerate(CELLS)]
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / f"f.{'csv' if kind == 'folder' else kind}"
    text = {
        "csv": "question,answer,group\n" + "".join(f"{r['question']},{r['answer']},\n" for r in rows),
        "json": json.dumps(rows),
        "jsonl": "".join(json.dumps(r) + "\n" for r in rows),
    }
    path.write_text(text[path.suffix[1:]])
    found = load(str(path.parent if kind == "folder" else path), "forget")
    assert [row["answer"] for row in found] == CELLS and not any("group" in row for row in found)


def test_labels_and_selectors_of_a_csv(tmp_path):
    (tmp_path / "f.csv").write_text("text,label,client\na,0,7\nb,1,8\nc,0,7\n")
    rows = load(str(tmp_path / "f.csv"), "data")
    assert [row["label"] for row in rows] == [0, 1, 0]
    inside, rest = select(rows, {"client": 7}, 0)
    assert [row["text"] for row in inside] == ["a", "c"] and len(rest) == 1


def test_tables_and_paths_given_in_python():
    frame = pandas.DataFrame([{**ROW, "group": None}, {**ROW, "question": "Who?", "group": "a"}])
    made = plain({"forget": frame, "retain": datasets.Dataset.from_list([ROW]), "model": Path("m")}, "request")
    assert made["retain"] == [ROW] and made["model"] == "m"
    assert load(made["forget"], "forget") == [ROW, {**ROW, "question": "Who?", "group": "a"}]
    request, faults = AuditRequest.of(Path("m"), {"forget": Path("f.jsonl")})
    assert not faults and (request.model, request.forget) == ("m", "f.jsonl")


def test_cells_of_the_hub_s_tables_stay_texts():
    """The header is read where the file is: pandas would take 007 for a number."""
    with fsspec.filesystem("memory").open("f.csv", "w") as file:
        file.write("question,answer\nWho?,007\n")
    config = types.SimpleNamespace(sep=",", features=None, keep_default_na=True)
    builder = types.SimpleNamespace(config=config, info=types.SimpleNamespace(features=None))
    tables.keep_texts(builder, ["memory://f.csv"], "forget")
    assert {name: kind.dtype for name, kind in config.features.items()} == {"question": "string", "answer": "string"}
    assert config.keep_default_na is False
