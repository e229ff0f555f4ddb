"""How a command starts and ends: what it need not compute again, and what its end leaves out."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from expunge.cli import _catalogue
from expunge.core import collection

ENDING = r"""
import atexit, os, threading, time
class Module:
    def __del__(self, write=os.write):
        write(1, b"teardown\n")
kept = Module()
atexit.register(print, "handler")
threading.Thread(target=lambda: (time.sleep(0.5), print("thread"))).start()
from expunge.cli import start
start()
"""


@pytest.mark.parametrize(("command", "code", "out"), [("--version", 0, {"expunge 0.1.0"}), ("lsit", 2, set())])
def test_a_process_ends_with_its_handlers_and_without_teardown(command: str, code: int, out: set[str]) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING, command], capture_output=True, text=True, timeout=60)
    lines = ended.stdout.splitlines()
    assert ended.returncode == code and set(lines) == {*out, "thread", "handler"} and lines[-1] == "handler"
    assert ("did you mean" in ended.stderr.lower()) == (code == 2)


def test_the_ending_can_be_seen_to_leave_out_the_teardown() -> None:
    ordinary = ENDING.replace("import start\nstart()", "import main\nmain()")
    ended = subprocess.run([sys.executable, "-c", ordinary, "--version"], capture_output=True, text=True, timeout=60)
    assert ended.stdout.endswith("handler\nteardown\n")


def test_the_catalogue_is_computed_again_only_where_a_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def catalogue(what: str) -> list[dict[str, Any]]:
        asked.append(what)
        return [{"name": what, "kind": len(asked), "a": 0.5}]

    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.import_module("expunge.workflows.list"), "catalogue", catalogue)
    files = [("npo.py", 1, 100)]
    monkeypatch.setattr(_catalogue, "_files", lambda: iter(files))
    first, again = (_catalogue.catalogue_of("methods", None) for _ in range(2))
    assert first == again and list(again[0]) == ["name", "kind", "a"] and asked == ["methods"]
    files[0] = ("npo.py", 2, 100)
    assert _catalogue.catalogue_of("methods", None)[0]["kind"] == 2
    assert _catalogue.catalogue_of("attacks", None)[0]["name"] == "attacks"


def test_the_catalogue_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "catalogue").write_text("not a folder")
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.import_module("expunge.workflows.list"), "catalogue", lambda what: [what])
    assert _catalogue.catalogue_of("methods", None) == ["methods"]


def test_the_files_of_every_plug_in_are_watched() -> None:
    watched = {Path(path).as_posix().partition("expunge/")[2] for path, _, _ in _catalogue._files()}
    assert {"methods/objectives/npo.py", "methods/recipes.yaml", "core/card.py", "attacks/loss_auc.py"} <= watched


def test_garbage_is_searched_for_as_ever_once_work_begins() -> None:
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        collection.settle()
        assert gc.get_threshold() == usual and gc.get_freeze_count() == frozen, "nothing was delayed"
        collection.delay()
        collection.delay()
        assert gc.get_threshold() == (collection.LATE, *usual[1:])
        collection.settle()
        assert gc.get_threshold() == usual and gc.get_freeze_count() > frozen + 1000
    finally:
        gc.set_threshold(*usual)


def test_a_process_delays_it_and_a_call_from_python_does_not() -> None:
    told = "import atexit, gc; atexit.register(lambda: print(gc.get_threshold()[0])); "
    for name, first in (("start", collection.LATE), ("main", gc.get_threshold()[0])):
        command = f"{told}from expunge.cli import {name}; {name}()"
        ended = subprocess.run([sys.executable, "-c", command, "--version"], capture_output=True, text=True, timeout=60)
        assert ended.stdout.splitlines()[-1] == str(first)
