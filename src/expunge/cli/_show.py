"""Shared by the commands: options, consoles, progress, and JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.core.errors import UNSAFE, as_written, printable
from expunge.core.files import finite
from expunge.core.reporter import Reporter, Silent
from expunge.core.variables import allow

if TYPE_CHECKING:
    from expunge.cli._terminal import Plain

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


def console() -> Plain:
    """The console on stdout."""
    from expunge.cli._terminal import Plain

    return Plain()


def emit(value: Any) -> None:
    """Print one JSON document on stdout, in plain ASCII where the terminal's encoding lacks a character."""
    value = _without_secrets(finite(value))
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    text = UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else _escape(found[0]), text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1, allow_nan=False).replace("\x7f", _escape("\x7f"))
    print(text)


def _without_secrets(value: Any) -> Any:
    """The same JSON value without values of environment variables."""
    if isinstance(value, str):
        return as_written(value)
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _escape(character: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(character.encode("utf-16-le", "surrogatepass")).cast("H"))


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
    if os.environ.get("TERM", "dumb") in ("dumb", ""):
        return Lines()
    from expunge.cli._terminal import Bars

    return Bars()


def code(passed: bool | None) -> int:
    """Exit code of a verdict."""
    return 1 if passed is False else 0
