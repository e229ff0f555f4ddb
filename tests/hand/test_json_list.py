"""A JSON list that is read one object at a time: the same values, and faults named where they are."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest

from expunge.core import json_list
from expunge.core.errors import BadInput
from expunge.core.json_list import objects
from expunge.data import rows as kept
from expunge.data.load import file_rows, load
from expunge.data.rows import Rows

VALUES: list[Any] = [
    'q"u\\o\n',
    "漢字 \U0001f600",
    "\u2028",
    "]},{[",
    1.5e-7,
    -12,
    2**70,
    True,
    None,
    [],
    {"a": [{}, [1]]},
]


def file_of(folder: Path, text: str, name: str = "x.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 7, 64, 2**16])
def test_the_values_are_those_of_the_whole_file(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    draw = random.Random(chunk)
    for seed in range(6):
        given = [{f"k{j}": draw.choice(VALUES) for j in range(draw.randrange(5))} for _ in range(seed)]
        text = json.dumps(given, indent=draw.choice([None, 2]), ensure_ascii=draw.random() < 0.5)
        assert list(objects(file_of(tmp_path, f"\ufeff \r\n{text}\n"), "data")) == given


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "it is not a list of objects"),
        ("[1, 2]", "it is not a list of objects"),
        ('[{"a": 1}, "b"]', "it is not a list of objects"),
        ("[" * 50_000, "it is not a list of objects"),
        ('[{"a": ' + "[" * 50_000, "nested too deeply"),
        ('[{"a": 1, "a": 2}]', "the key 'a' occurs twice"),
        ('[{"a": 1},\n{"a" 2}]', "line 2: Expecting ':' delimiter"),
        ('[{"a": 1},\n\n]', "line 3: Expecting value"),
        ('[{"a": 1}\n {"a": 2}]', "line 2: Expecting ',' delimiter"),
        ('[{"a": 1}', "line 1: Expecting ',' delimiter"),
        ('[{"a": 1}]\n[]', "line 2: Extra data"),
        ('[{"a": 1},\n{"b": "c', "line 2: Unterminated string"),
        ('[{"a": ' + "1" * 5000 + "}]", "digits"),
        ("", "it is not a list of objects"),
    ],
)
@pytest.mark.parametrize("chunk", [3, 2**16])
def test_faults_are_named(text: str, said: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    with pytest.raises(BadInput, match=r"^data: '.*x.json' cannot be read") as error:
        list(objects(file_of(tmp_path, text), "data"))
    assert said in str(error.value)


def test_a_byte_that_is_not_utf_8_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'[{"a": "' + b"e" * 70_000 + b'\xff"}]')
    with pytest.raises(BadInput, match=r"is not UTF-8 \(byte 70008\)"):
        list(objects(tmp_path / "x.json", "data"))


def test_an_endless_object_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_list, "TEXT", 100)
    monkeypatch.setattr(json_list, "CHUNK", 16)
    good = [{"a": "b" * 60}] * 9
    assert list(objects(file_of(tmp_path, json.dumps(good)), "data")) == good
    with pytest.raises(BadInput, match="MiB in row 10"):
        list(objects(file_of(tmp_path, json.dumps([*good, {"a": "b" * 2000}])), "data"))


ROWS = [{"question": f"Which {i}?", "answer": f"This {i}."} for i in range(9)]


def forms(folder: Path) -> dict[str, str]:
    """The rows as one list, one object per line in a .json, a folder of such files, and as `datasets` saves them."""
    listed = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "tables").mkdir()
    file_of(folder / "tables", listed, "a.jsonl")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder / "saved"))
    return {
        "list": str(file_of(folder, json.dumps(ROWS, indent=1), "list.json")),
        "lines": str(file_of(folder, listed, "lines.json")),
        "folder": str(folder / "tables"),
        "named": f"{folder}:tables:a",
        "saved": str(folder / "saved"),
    }


def test_every_form_of_a_table_goes_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "IN_MEMORY", 4)
    for source in forms(tmp_path).values():
        found = load(source, "retain")
        assert isinstance(found, Rows) and list(found) == ROWS


def test_rows_come_before_the_rest_is_read(tmp_path: Path) -> None:
    """What is broken further on is met when it is reached."""
    text = json.dumps([{"text": "a" * 1000} for _ in range(200)])
    for broken in (text[:-1] + ", {]", text[1:-1].replace("}, {", "}\n{") + "\n{]\n{]"):
        rows = iter(file_rows(file_of(tmp_path, broken), "data"))
        assert len(list(itertools.islice(rows, 200))) == 200
        with pytest.raises(BadInput, match="broken JSON at line"):
            next(rows)


@pytest.mark.parametrize("text", ['{"text": "a"}', '{\n"text":\n"a"}\n', '{"text": "a"}\n\n'])
def test_an_object_alone_is_one_row(text: str, tmp_path: Path) -> None:
    assert load(str(file_of(tmp_path, text)), "data") == [{"text": "a"}]
    with pytest.raises(BadInput, match="broken JSON at line 2"):
        load(str(file_of(tmp_path, '{"text":\n"a"')), "data")
