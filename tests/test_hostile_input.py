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
from rich.console import Console

from expunge.cli import _show
from expunge.cli.app import run
from expunge.core.documents import parse_json, parse_yaml
from expunge.core.errors import BadInput, printable
from expunge.core.files import read_json
from expunge.core.request import Request, read_config
from expunge.data.examples import LONGEST
from expunge.data.load import load
from expunge.evaluation.acceptance import parse, verdict
from expunge.evaluation.scores import Score
from expunge.pipeline.room import fits_cache
from expunge.report.terminal import print_evidence

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
    text = "a: &x [1, 2]\nb: *x\nc: 1:30\nd: 1_000\ne: 2001-01-01\nf: 1.5\ng: '<<'\n? h\n: ~\n"
    assert parse_yaml(text) == {
        "a": [1, 2],
        "b": [1, 2],
        "c": 90,
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
    console = _show.Plain(file=file, force_terminal=True, width=200)
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
    """Whoever raises it, and whether or not it names its file: what to do, how to go on, 2, and no file of a traceback."""
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
    assert run(["list"]) == 70
    assert "a fault of ours: KeyError" in capsys.readouterr().err


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("after", [0.3, 1.0])
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


def score(value: float, subject: str = "after", n: int = 1, name: str = "forget_nll") -> Score:
    return Score(name, "forgetting", "forget", subject, value, value, value, n, "nats", "gold")


def test_one_example_has_no_interval() -> None:
    one, two = score(5.4), score(5.4, n=2)
    assert (one.low, one.high, one.why) == (None, None, "n = 1: no interval")
    assert (two.low, two.high, two.why) == (5.4, 5.4, "")
    steps = Score("robustness_steps", "robustness", "forget", "after", 3.0, None, None, 1, "steps", "higher")
    assert steps.why == ""


def test_the_bar_is_held_against_one_example() -> None:
    rules = [parse("forget.nll", ">= 1"), parse("forget.nll", "within 1 of gold"), parse("forget.nll", "<= 2 * before")]
    found = verdict(rules, [score(5.4), score(5.0, "gold"), score(3.0, "before")])
    assert found.passed and all("n = 1: no interval" in line.why for line in found.lines[:3])
    assert found.lines[3].rule.startswith("forget.nll <= 1.5") and found.lines[3].passed
    assert not verdict(rules[:1], [score(9.0), score(1.0, "gold")]).lines[1].passed
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
        "scores": [score(1.0).to_json()],
        "cost": {"unlearn_seconds": 1.0},
        "verdict": {"passed": True, "lines": []},
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
