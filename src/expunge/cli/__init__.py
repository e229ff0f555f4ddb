"""The command line: one file a verb; parse, call, print.

This module imports nothing that takes time: Ctrl-C is heard before the rest is there.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from typing import Any, NoReturn

AGAIN = 1.0
"""Seconds within which a second Ctrl-C is the same one: what the first began, and what it says, is let finish."""
_pressed = 0.0


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and exits with its code; never shows a traceback."""
    listens = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # a shell lets its background jobs ignore Ctrl-C
    if listens:
        signal.signal(signal.SIGINT, lambda *_: leave())
        sys.unraisablehook = _unraisable
        # First in, last out: from there on Python puts its own handlers back, which would end the process without its code.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        from expunge.cli.app import run

        if listens:
            signal.signal(signal.SIGINT, _interrupt)
        code = run(arguments)
        sys.stdout.flush()
        if pressed():  # Python ends by the signal, not with the code, where it fell into an exec() of some library
            os._exit(code)
        if listens:  # what is left is Python's own end, where an interruption would show a traceback
            signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    except KeyboardInterrupt:
        leave()
    sys.exit(code)


def pressed() -> bool:
    """Was Ctrl-C pressed: libraries turn the interruption of an import into errors of their own."""
    return _pressed > 0


def leave() -> NoReturn:
    """Ends the process here and now: nothing that is written is ever half under its final name."""
    os.write(2, b"expunge: Interrupted.\n")
    os._exit(130)


def _interrupt(*_: Any) -> None:
    global _pressed
    before, _pressed = _pressed, time.monotonic()
    if not before or _pressed - before > AGAIN:
        raise KeyboardInterrupt


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    """Where Ctrl-C falls into a callback of the interpreter, it can only be printed, and the work would go on."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        leave()
    sys.__unraisablehook__(found)


__all__ = ["main"]
