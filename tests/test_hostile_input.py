"""What nobody would write by chance: each ends in seconds, in a sentence, with exit code 2."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console

from expunge.cli import _show, _terminal
from expunge.cli.app import run
from expunge.core.documents import parse_json, parse_yaml
from expunge.core.errors import BadInput, printable
from expunge.core.files import read_json
from expunge.core.request import Request, read_config
from expunge.data import sets
from expunge.data.examples import LONGEST
from expunge.data.load import load
from expunge.evaluation.acceptance import by_name, parse, verdict
from expunge.evaluation.implied import implied_checks
from expunge.evaluation.scores import Score
from expunge.pipeline import out_folder
from expunge.pipeline.folders import fits_cache
from expunge.report.terminal import print_evidence
from expunge.workflows._bench_entries import Entry
from expunge.workflows.neighbours import neighbours

ESCAPE = "\x1b[2J\u202e\x9b"
PAIR = {"question": "Who?", "answer": "Nobody."}


def aliases(start: str, line: str) -> str:
    return start + "".join(f"a{i}: &a{i} {line % ', '.join([f'*a{i - 1}'] * 9)}\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (aliases("a0: &a0 {k: 1}\n", "{<<: [%s]}"), "aliases"),
        (aliases("a0: &a0 [x, x]\n", "[%s]"), "aliases"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", "line 2: merge keys"),
        ("<<: {x: 1}", "merge keys"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a'"),
        ("x:\n  a: 1\n  a: 2\n", "line 3: the key 'a'"),
        ("&a [*a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("[" * 100_000, "too deeply"),
        ("? " * 5000, "too deeply"),
        ("{a: " * 3000 + "1" + "}" * 3000, "too deeply"),
        ("a: " + ":".join("1" * 100_000), "1000 characters"),
        ("a: " + "1" * 400_000, "1000 characters"),
        ("a: \0", "not allowed"),
        ("a: !!python/object/apply:os.system [x]", "constructor"),
    ],
)
def test_yaml_is_bounded(text: str, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=says):
        parse_yaml(text)
    assert time.monotonic() - began < 10


def test_yaml_as_people_write_it_is_read_as_before() -> None:
    text = "a: &x [1, 2]\nb: *x\nd: 1_000\ne: 2001-01-01\nf: 1.5\ng: '<<'\n? h\n: ~\n"
    assert parse_yaml(text) == {
        "a": [1, 2],
        "b": [1, 2],
        "d": 1000,
        "e": "2001-01-01",
        "f": 1.5,
        "g": "<<",
        "h": None,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "too deeply"),
        ('{"a":' * 100_000, "too deeply"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[1,\n2,,]", "line 2"),
        ("1" * 5000, "digits"),
    ],
)
def test_json_is_bounded(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        parse_json(text)
    path = tmp_path / "x.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="too deeply"):
        read_json(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 50,
        bytes(range(256)) * 20,
        "model: x\n".encode("utf-16"),
        b"\xff\xfe",
        b"\x1f\x8b\x08" + bytes(90),
        b"\x89PNG\r\n\x1a\n",
        b"- a\n- b\n",
        b"model: caf\xe9\n",
        ("x" * 5000 + ": 1\n").encode(),
        b"#" * 3_000_000,
        ("model: x\n" + "".join(f"f{i}: {i}\n" for i in range(2000))).encode(),
        b'model: "\\ud800"\n',
    ],
    ids=range(13),
)
def test_a_file_that_is_no_request(raw: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("r.yaml", "r.json"):
        (tmp_path / name).write_bytes(raw)
        assert run(["run", str(tmp_path / name), "--plan"]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said and all(line.startswith("expunge: ") and line.isprintable() for line in said)


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r"])
def test_marks_and_line_ends_of_other_systems_are_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + ending.join(["model: m", "out: o", ""]).encode())
    assert read_config(path, "request") == {"model": "m", "out": "o"}


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/null", "/dev/stdin", "fifo", "folder", "no/such", "x" * 5000, "a\0b"]
)
def test_only_a_regular_file_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe would keep its reader waiting, a device would never end."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    os.mkfifo("rows.jsonl")
    (tmp_path / "folder").mkdir()
    os.mkfifo("folder/rows.jsonl")
    for call in (
        lambda: read_config(name, "request"),
        lambda: load(name, "forget"),
        lambda: load("rows.jsonl", "forget"),
    ):
        with pytest.raises(BadInput):
            call()


def test_a_cache_that_is_none_is_named_in_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for place in (file, file / "below", tmp_path / ("x" * 5000)):
        monkeypatch.setenv("EXPUNGE_CACHE", str(place))
        with pytest.raises(BadInput, match="EXPUNGE_CACHE"):
            fits_cache()
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "new" / "cache"))
    fits_cache()
    assert not (tmp_path / "new").exists()


BIG = 30_000_000


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "answer": "a" * BIG},
        {"question": "a b" * (BIG // 3), "answer": "x"},
        {"text": "é" * (BIG // 2)},
        {"messages": [{"role": "user", "content": "u" * BIG}, {"role": "assistant", "content": "y"}]},
        {**PAIR, "perturbed_answer": ["x" * BIG]},
        {**PAIR, "subject": "s" * BIG},
    ],
    ids=["answer", "question", "text", "messages", "perturbed", "subject"],
)
def test_a_line_of_thirty_megabytes_names_its_row(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"row 2 of rows\.jsonl.*holds a text of [\d,]+ bytes"):
        load(str(path), "forget")
    assert time.monotonic() - began < 20


def test_a_text_of_thirty_megabytes_needs_little_memory(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("word " * (BIG // 5))
    (tmp_path / "r.json").write_text(json.dumps({"model": "none", "forget": "t.txt", "method": "npo", "out": "out"}))
    done = subprocess.run(
        [sys.executable, "-m", "expunge", "run", "r.json", "--plan"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=120,
    )
    assert done.returncode == 2 and "holds a text of 30,000,000 bytes" in done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2_000_000  # kB


def test_a_long_text_is_taken_up_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("x" * LONGEST)
    assert len(load(str(path), "forget")[0]["text"]) == LONGEST


@pytest.mark.parametrize("field", ["out", "model", "gold"])
@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\u202e", "\n", "\u200b", "\0"])
def test_no_path_of_a_request_holds_what_a_terminal_obeys(field: str, character: str) -> None:
    values = {"model": "m", "forget": "f", "method": "npo", "out": "o", field: f"a{character}b"}
    with pytest.raises(BadInput, match="character") as caught:
        Request.parse(values)
    assert str(caught.value).isprintable()


def test_what_is_printed_is_escaped() -> None:
    assert printable(f"a{ESCAPE}é数\u200c b\n") == "a\\x1b[2J\\u202e\\x9bé数\u200c b\\n"
    assert printable("a\nb\t", keep="\n") == "a\nb\\t"
    file = io.StringIO()
    console = _terminal.Plain(file=file, force_terminal=True, width=200)
    console.print(f"name {ESCAPE} [bold]x[/nothing] :smile:")
    shown = file.getvalue()
    assert "\\x1b[2J\\u202e\\x9b [bold]x[/nothing] :smile:" in shown
    assert not set(shown) & set("\x1b\u202e\x9b")


def test_evidence_of_anybody_paints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    score = {
        "name": f"forget_nll{ESCAPE}",
        "side": "forgetting",
        "split": "forget",
        "subject": "after",
        "value": 1.0,
        "low": 0.5,
        "high": 2.0,
        "n": 4,
        "unit": "nats",
        "better": "gold",
        "status": "measured",
        "why": "",
    }
    evidence = {
        "title": ESCAPE,
        "method": ESCAPE,
        "scores": [score],
        "cost": {},
        "verdict": {"passed": True, "lines": [{"rule": f"{ESCAPE}\npassed", "passed": True, "why": ESCAPE}]},
    }
    file = io.StringIO()
    print_evidence(evidence, Console(file=file, width=100), Path(f"out{ESCAPE}"))
    assert not set(file.getvalue()) & set("\x1b\u202e\x9b")
    _show.emit(evidence)
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\u202e\x9b\x7f") and json.loads(shown) == evidence


DISK = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.EFBIG]


@pytest.mark.parametrize("number", DISK)
@pytest.mark.parametrize("how", ["named", "bare", "caused", "rust"])
def test_a_fault_of_the_machine_is_a_sentence(
    number: int, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever raises it, and whether or not it names its file: what to do, how to go on, 2, and no file of a
    traceback."""
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"model": "m", "forget": "f", "method": "npo", "out": "o"}))

    def full(*_: Any, **__: Any) -> None:
        if how == "rust":
            raise RuntimeError(f"Error while serializing: I/O error: something (os error {number})")
        error = OSError(number, os.strerror(number), *(["the/file"] if how == "named" else []))
        if how == "caused":
            raise ValueError("cannot be written") from error
        raise error

    monkeypatch.setattr(importlib.import_module("expunge.pipeline.plan"), "read_request", full)
    monkeypatch.setattr("tempfile.mkstemp", None)
    assert run(["run", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and os.strerror(number) in said and "--resume" in said
    assert how != "named" or "the/file" in said


def test_a_fault_of_ours_is_still_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("\x1b")

    monkeypatch.setattr(importlib.import_module("expunge.workflows.list"), "catalogue", broken)
    monkeypatch.setattr(importlib.import_module("expunge.core.cache"), "load", lambda entry: None)
    assert run(["list"]) == 70
    assert "internal error: KeyError" in capsys.readouterr().err


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("after", [0.3, pytest.param(1.0, marks=pytest.mark.slow)])
def test_ctrl_c_while_things_are_imported(after: float, twice: bool) -> None:
    """The first line says that the process listens; from there on no moment shows a traceback."""
    code = (
        "import expunge.cli, sys\nprint('here', flush=True)\n"
        "expunge.cli.main(['neighbours', '--forget', 'builtin:authors/forget', '--corpus', 'builtin:authors/retain'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    time.sleep(after)
    for _ in range(1 + twice):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) in ((130, "expunge: Interrupted.\n"), (0, ""))


def score(value: float, model: str = "after", n: int = 1, name: str = "forget_nll") -> Score:
    return Score(name, "forgetting", "forget", model, value, value, value, n, "nats", "gold")


def test_one_example_has_no_interval() -> None:
    one, two = score(5.4), score(5.4, n=2)
    assert (one.low, one.high, one.why) == (None, None, "n = 1: no interval")
    assert (two.low, two.high, two.why) == (5.4, 5.4, "")
    steps = Score("robustness_steps", "robustness", "forget", "after", 3.0, None, None, 1, "steps", "higher")
    assert steps.why == ""


def test_the_bar_is_held_against_one_example() -> None:
    scores = [score(5.4), score(5.0, "gold"), score(3.0, "before")]
    rules = [parse("forget.nll", ">= 1"), parse("forget.nll", "within 1 of gold"), parse("forget.nll", "<= 2 * before")]
    found = verdict(rules, scores, extra=implied_checks(by_name(scores), "suppress"))
    assert found.passed and all("n = 1: no interval" in line.why for line in found.lines[:3])
    assert found.lines[3].rule.startswith("forget.nll <= 1.5") and found.lines[3].passed
    scores = [score(9.0), score(1.0, "gold")]
    assert not implied_checks(by_name(scores), "suppress")[0].passed
    file = io.StringIO()
    print_evidence(
        {"scores": [score(5.4).to_json()], "verdict": found.to_json(), "cost": {}}, Console(file=file, width=120)
    )
    assert "[n = 1]" in file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [3]},
        {"scores": {}},
        {"scores": [{"name": "x"}]},
        {"scores": [{"name": [], "side": "x", "subject": "after"}]},
        {"cost": []},
        {"cost": {"unlearn_seconds": "x"}},
        {"verdict": {"passed": "yes"}},
        {"method": 3},
    ],
)
def test_compare_names_evidence_that_is_broken(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {
        "schema": 2,
        "request": {},
        "scores": [score(1.0).to_json()],
        "cost": {"unlearn_seconds": 1.0},
        "environment": {},
        "verdict": {"passed": True, "lines": []},
        "notes": [],
        "splits": {},
    }
    for name, evidence in {"a": good, "b": {**good, **change}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "evidence.json").write_text(json.dumps(evidence))
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "evidence.json" in said
    for raw in ("[" * 100_000, "", "\0"):
        (tmp_path / "b" / "evidence.json").write_text(raw)
        assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 2


# -- what a row may hold beside the example -----------------------------------------------------------

SURROGATE = "\ud800"
ODD: list[dict[str, Any]] = [
    *({name: value} for name in ("group", "domain", "subject") for value in ([1], {"a": 1}, SURROGATE)),
    *(
        {name: value}
        for name in ("paraphrased_question", "multi_hop_question", "cloze_question", "translated_question")
        for value in (5, True, [5], [None], [[PAIR]], {"a": 1}, [{"a": 1}], [{"question": 5}], [{**PAIR, "answer": []}])
    ),
    *({name: value} for name in ("trace", "compliant") for value in (5, ["x"], {"a": 1}, SURROGATE)),
    *(
        {name: value}
        for name in ("aliases", "alternates", "paraphrased_answer", "perturbed_answer")
        for value in (5, {"a": 1}, [5], [None], [["x"]], [SURROGATE])
    ),
    {"else": json.loads("[" * 200 + "]" * 200)},
    {"else": SURROGATE},
    {"else": {"a": [SURROGATE]}},
    {SURROGATE: 1},
    {5: "x"},
]


@pytest.mark.parametrize("extra", ODD, ids=[ascii(extra)[:50] for extra in ODD])
def test_every_field_that_something_reads_is_checked(extra: dict[Any, Any]) -> None:
    with pytest.raises(BadInput, match=r"forget\[1\]"):
        load([PAIR, {**PAIR, **extra}], "forget")


def test_fields_beside_the_example_as_people_write_them() -> None:
    row = {
        **PAIR,
        "paraphrased_question": "Which one?",
        "multi_hop_question": [{"question": "Whose?", "answer": None}, "Of whom?"],
        "cloze_question": None,
        "translated_question": "",
        "trace": None,
        "group": 3,
        "subject": "",
        "aliases": "Nobody",
        "else": {"a": [1, {"b": 2}]},
    }
    (found,) = load([row], "forget")
    assert found == {
        **PAIR,
        "paraphrased_question": ["Which one?"],
        "multi_hop_question": [{"question": "Whose?"}, "Of whom?"],
        "group": 3,
        "subject": "",
        "aliases": ["Nobody"],
        "else": {"a": [1, {"b": 2}]},
    }
    assert load([{"text": "A text.", "question": 5}], "forget") == [{"text": "A text."}]


# -- data folders ------------------------------------------------------------------------------------


def rows_in(folder: Path, name: str = "a.jsonl", answer: str = "Nobody.") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"question": "Who?", "answer": answer}) + "\n", encoding="utf-8")
    return folder


def described(folder: Path, files: Any, card: str = "README.md") -> Path:
    """A data folder whose card says which files it has."""
    told = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    rows_in(folder)
    (folder / card).write_text(f"---\n{told}---\n# x\n" if card == "README.md" else told, encoding="utf-8")
    return folder


def pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """One picture under many names."""
    folder.mkdir()
    Image.new("RGB", size).save(folder / "0.png")
    for k in range(1, count):
        os.link(folder / "0.png", folder / f"{k}.png")
    told = [{"file_name": f"{k}.png", "label": k} for k in range(count)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    return folder


def test_no_row_of_a_data_folder_stays_in_a_cache(tmp_path: Path) -> None:
    """Whatever reads it: a folder, one that is described, a picture folder, a table."""
    sources = [
        str(rows_in(tmp_path / "plain", answer="ERASED")),
        f"{described(tmp_path / 'card', 'a.jsonl')}:train",
        str(pictures(tmp_path / "pictures", 2, (4, 4))),
    ]
    (tmp_path / "t.csv").write_text("question,answer\nWho?,ERASED\n")
    code = (
        f"from expunge.data.load import load\nfor source in {[*sources, str(tmp_path / 't.csv')]!r}: load(source, 'x')"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "EXPUNGE_CACHE": str(tmp_path / "cache")}
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    environment["TMPDIR"] = str(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    for left in ("hf", "cache", "tmp"):
        assert [path for path in (tmp_path / left).rglob("*") if path.is_file()] == []


ELSEWHERE = [
    "{tmp}/secret/a.jsonl",
    "../secret/a.jsonl",
    "../../*/secret/a.jsonl",
    "sub/../../secret/a.jsonl",
    "~/a.jsonl",
    "C:/a.jsonl",
    "file://{tmp}/secret/a.jsonl",
    "http://127.0.0.1:9/a.jsonl",
    "hf://datasets/some/one/a.jsonl",
    "zip://a.jsonl::{tmp}/secret/a.zip",
    "link.jsonl",
    "*.jsonl",
    "linked/a.jsonl",
]


@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_data_folder_leads_to_no_file_elsewhere(path: str, card: str, tmp_path: Path) -> None:
    rows_in(tmp_path / "secret", answer="SECRET")
    path = path.format(tmp=tmp_path)
    for number, files in enumerate((path, [path], [{"split": "train", "path": ["a.jsonl", path]}])):
        folder = described(tmp_path / f"data{number}", files, card)
        if "link.jsonl" in path or "*.jsonl" == path:
            os.symlink(tmp_path / "secret/a.jsonl", folder / "link.jsonl")
        if "linked" in path:
            os.symlink(tmp_path / "secret", folder / "linked")
        names = (":default", ":train") if card == "README.md" else ()  # the other is read with the whole folder alone
        for source in (str(folder), *(f"{folder}{name}" for name in names)):
            with pytest.raises(BadInput, match="lies outside it"):
                load(source, "forget")


def test_folders_that_name_their_own_files_are_read(tmp_path: Path) -> None:
    for number, files in enumerate(("a.jsonl", "*.jsonl", ["./a.jsonl"], [{"split": "train", "path": "**/a.jsonl"}])):
        folder = described(tmp_path / f"data{number}", files)
        assert load(str(folder), "x") == load(f"{folder}:train", "x") == [{**PAIR}]
    os.symlink(tmp_path / "data0", tmp_path / "whole")
    assert load(str(tmp_path / "whole"), "x") == [{**PAIR}]


@pytest.mark.parametrize("name", ["{tmp}/secret.png", "../secret.png", "file://{tmp}/secret.png"])
def test_no_row_leads_to_a_picture_elsewhere(name: str, tmp_path: Path) -> None:
    import datasets
    import pyarrow.parquet

    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    name = name.format(tmp=tmp_path)
    folder = pictures(tmp_path / "pictures", 2, (4, 4))
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    table = pyarrow.Table.from_pylist(
        [{"image": {"bytes": None, "path": name.replace("../", f"{folder}/../")}, "label": 0}],
        schema=kinds.arrow_schema,
    )
    (tmp_path / "table").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "table/t.parquet")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": name, "label": 0}) + "\n")
    for source in (folder, tmp_path / "table"):
        with pytest.raises(BadInput):
            load(str(source), "forget")


def test_a_saved_data_set_names_no_file_elsewhere(tmp_path: Path) -> None:
    import datasets

    for name in ("mine", "theirs"):
        datasets.Dataset.from_list([PAIR]).save_to_disk(str(tmp_path / name))
    assert load(str(tmp_path / "mine"), "x") == [PAIR]
    state = json.loads((tmp_path / "mine/state.json").read_text())
    state["_data_files"] = [{"filename": "../theirs/" + state["_data_files"][0]["filename"]}]
    (tmp_path / "mine/state.json").write_text(json.dumps(state))
    with pytest.raises(BadInput, match="lies outside it"):
        load(str(tmp_path / "mine"), "forget")


@pytest.mark.parametrize(
    ("count", "size", "says"),
    [(2, (9400, 9400), "'row 1' holds a picture of 9,400 x 9,400 pixels"), (24, (4000, 4000), "'row 23' brings the")],
)
def test_pictures_are_bounded_before_they_are_decoded(
    count: int, size: tuple[int, int], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "pictures", count, size)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(BadInput, match=says):
        load(str(folder), "forget")


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_a_table_of_very_many_columns_is_named(kind: str, tmp_path: Path) -> None:
    row = {f"c{i}": 1 for i in range(20_000)}
    path = rows_in(tmp_path / "wide", "x") / f"wide.{kind}"
    (tmp_path / "wide/x").unlink()
    if kind == "csv":
        path.write_text(",".join(row) + "\n" + ",".join("1" for _ in row) + "\n")
    elif kind == "json":
        path.write_text(json.dumps([row]))
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    began = time.monotonic()
    for source in (path, path.parent):
        with pytest.raises(BadInput, match="has 20,000 columns, and a table may have 5,000"):
            load(str(source), "forget")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "text", ["A. " * 70_000, "A" + "-" * 140_000 + " B", "Ab. \"'" * 30_000, ("Ab " + " " * 50) * 3000]
)
def test_one_long_row_has_its_neighbours_in_seconds(text: str) -> None:
    began = time.monotonic()
    found = neighbours([{"text": text}], [{"text": text}, {"text": "Another."}])
    assert [(one.forget, one.corpus, one.why) for one in found] == [(1, 1, "exact")]
    assert time.monotonic() - began < 30


def test_labels_that_differ_have_folders_that_differ() -> None:
    labels = ["idk answers=a b", "idk answers=a_b", "idk_answers=a b", "idk_answers=a_b", "npo", "a/b", "a_b"]
    names = {Entry(label, "", "").folder for label in labels}
    assert len(names) == len(labels) and {"npo", "a_b"} < names and all("/" not in name for name in names)


@pytest.mark.parametrize("verb", ["tune", "bench"])
def test_out_expands_once(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies there is found under the folder's own name, and the value is not shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPUNGE_X", str(tmp_path / "there"))
    monkeypatch.setenv("EXPUNGE_SECRET_KEY", "x")
    seen: list[Path] = []

    def held(folder: Path) -> None:
        seen.append(folder)
        raise BadInput.of("--out", str(folder), "is held", "wait")

    monkeypatch.setattr(out_folder, "hold", held)
    rows_in(tmp_path, "f.jsonl")
    rows_in(tmp_path, "r.jsonl", "Somebody.")
    values = {"model": "builtin:authors", "forget": "builtin:authors/forget", "method": "npo", "out": "o"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    assert run([verb, "r.yaml", "--out", "${EXPUNGE_X}/b"]) == 2
    assert seen == [tmp_path / "there/b"] and str(tmp_path / "there") not in capsys.readouterr().err
    assert run([verb, "r.yaml", "--out", "${EXPUNGE_SECRET_KEY}/b"]) == 2
    assert "a secret" in capsys.readouterr().err and not (tmp_path / "${EXPUNGE_X}").exists()


def test_a_folder_with_a_large_hidden_tree_is_refused_before_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home folder: `datasets` would list what is hidden there for each of its patterns."""
    (tmp_path / "train.jsonl").write_text('{"question": "Who?", "answer": "Ana."}\n')
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    for i in range(40):
        (tmp_path / ".git" / "objects" / str(i)).write_text("")
    assert len(load(str(tmp_path), "data")) == 1
    monkeypatch.setattr(sets, "HIDDEN", 30)
    with pytest.raises(BadInput, match="has hidden folders with 30 entries"):
        load(str(tmp_path), "data")
