"""Shared by the commands: options, consoles, progress, and JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import UNSAFE, as_written, printable
from expunge.core.files import finite
from expunge.core.variables import allow

JSON_HELP = "Print JSON on stdout; progress goes to stderr."


def _allow(names: list[str] | None) -> list[str]:
    allow(names or [])
    return names or []


Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME",
        callback=_allow,
        help="A variable that may expand in paths, besides HOME and EXPUNGE_*; may be repeated.",
    ),
]
"""The option of every command that reads a request or opens a path; parsing it lets the variables expand."""
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the file; may be repeated.")
]
"""The option of every command that reads a file of settings."""


class Plain(Console):
    """A console that prints no markup, no control characters and no value of an environment variable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, soft_wrap=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_as_written, objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            unsafe = not segment.control and UNSAFE.search(segment.text)
            yield Segment(printable(segment.text, "\n"), segment.style) if unsafe else segment


def _as_written(shown: Any) -> Any:
    if isinstance(shown, str):
        return as_written(shown)
    if isinstance(shown, Text) and (text := as_written(shown.plain)) != shown.plain:
        return Text(text, style=shown.style)
    return shown


def console() -> Console:
    """The console on stdout."""
    return Plain()


def emit(value: Any) -> None:
    """Print one JSON document on stdout, in plain ASCII where the terminal's encoding lacks a character."""
    value = _shown(finite(value))
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    text = UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else _escape(found[0]), text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1, allow_nan=False).replace("\x7f", _escape("\x7f"))
    print(text)


def _shown(value: Any) -> Any:
    """The same JSON value without values of environment variables."""
    if isinstance(value, str):
        return as_written(value)
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    return [_shown(inner) for inner in value] if isinstance(value, list) else value


def _escape(character: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(character.encode("utf-16-le", "surrogatepass")).cast("H"))


class Bars:
    """Progress on stderr with an estimate of the time left."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=Plain(stderr=True),
            transient=False,
        )
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
    """Progress for a dumb terminal: a line at the start and end of a stage, and every few seconds between."""

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
        print(printable(as_written(text)), file=sys.stderr, flush=True)


def reporter() -> Reporter:
    """Bars on a terminal, lines on a dumb one, silence in a pipe."""
    from expunge.core import processes  # imports torch

    if not sys.stderr.isatty() or not processes.main():
        return Silent()
    return Lines() if os.environ.get("TERM", "dumb") in ("dumb", "") else Bars()


def code(passed: bool | None) -> int:
    """Exit code of a verdict."""
    return 1 if passed is False else 0
