"""What the verbs share: consoles, progress, JSON on stdout alone."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from expunge.core.contracts import Reporter, Silent
from expunge.core.files import finite

JSON_HELP = "Print JSON on stdout; progress goes to stderr."


def console() -> Console:
    """Where people read: stdout."""
    return Console(highlight=False, soft_wrap=False)


def emit(value: Any) -> None:
    """One JSON document on stdout, in plain ASCII where the terminal's encoding has not all characters."""
    text = json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(finite(value), indent=1, allow_nan=False)
    print(text)


class Bars:
    """Progress on stderr with an estimate of the time left."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<18}"), BarColumn(bar_width=28), MofNCompleteColumn(),
            TimeRemainingColumn(compact=True), TextColumn("{task.fields[note]}"),
            console=Console(stderr=True), transient=False,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}

    def start(self, name: str, total: int) -> None:
        self.progress.start()
        self.tasks[name] = self.progress.add_task(name, total=max(1, total), note="")

    def advance(self, name: str, done: int, note: str = "") -> None:
        self.progress.update(self.tasks[name], completed=done, note=note)

    def finish(self, name: str) -> None:
        task = self.tasks.pop(name)
        self.progress.update(task, note="done")
        self.progress.stop_task(task)
        if not self.tasks:
            self.progress.stop()
            for old in list(self.progress.task_ids):
                self.progress.remove_task(old)

    def say(self, text: str) -> None:
        self.progress.console.print(text)


class Lines:
    """Progress for a dumb terminal: a line when a stage starts, at most every few seconds, and at its end."""

    EVERY = 5.0

    def __init__(self) -> None:
        self.began: dict[str, tuple[float, int]] = {}
        self.last = 0.0

    def start(self, name: str, total: int) -> None:
        self.began[name] = (time.monotonic(), total)
        self.say(f"{name}: {total} to do")

    def advance(self, name: str, done: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last < self.EVERY or not done:
            return
        self.last = now
        began, total = self.began[name]
        left = (now - began) / done * (total - done)
        self.say(f"{name}: {done}/{total}, about {left:.0f} s left {note}".rstrip())

    def finish(self, name: str) -> None:
        began, _ = self.began.pop(name)
        self.say(f"{name}: done in {time.monotonic() - began:.1f} s")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def reporter() -> Reporter:
    """Bars on a terminal, lines on a dumb one, silence in a pipe."""
    import os

    from expunge.training import processes

    if not sys.stderr.isatty() or not processes.main():
        return Silent()
    return Lines() if os.environ.get("TERM", "dumb") in ("dumb", "") else Bars()


def code(passed: bool | None) -> int:
    """Exit code of a verdict."""
    return 1 if passed is False else 0
