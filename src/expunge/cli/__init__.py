"""The command line: one file per command, which parses, calls and prints.

This module imports nothing slow, so that Ctrl-C works while the rest is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

AGAIN = 1.0
"""Seconds within which a second Ctrl-C is ignored, so that the handling of the first can finish."""
_pressed = 0.0


def start() -> NoReturn:
    """Run the command as a process of its own, and end it without the interpreter's teardown.

    Clearing modules takes more than a second once torch is loaded, and frees only what the system frees at once. What
    an ordinary exit does before that is done: threads are joined, exit handlers run, streams are flushed.
    """
    from expunge.core import collection

    code: Any = 1
    collection.delay()
    try:
        main()
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    if sys.getprofile() is not None or sys.gettrace() is not None:  # a profiler writes its figures later
        sys.exit(code)
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code if isinstance(code, int) else 1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code; never shows a traceback."""
    listens = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # background jobs of a shell ignore Ctrl-C
    if listens:
        signal.signal(signal.SIGINT, lambda *_: leave())
        sys.unraisablehook = _unraisable
        # Registered first, so run last: Python then restores its own handlers, which would exit without our code.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        from expunge.cli.app import run

        if listens:
            signal.signal(signal.SIGINT, _interrupt)
        code = run(arguments)
        sys.stdout.flush()
        if was_interrupted():  # Python exits by the signal, not with the code, where it arrived in a library's exec()
            os._exit(code)
        if listens:  # from here on an interruption would show a traceback of Python's own shutdown
            signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    except KeyboardInterrupt:
        leave()
    sys.exit(code)


def was_interrupted() -> bool:
    """True once Ctrl-C was pressed: libraries turn an interrupted import into errors of their own."""
    return _pressed > 0


def leave() -> NoReturn:
    """End the process at once: no file under its final name is ever half-written."""
    os.write(2, b"expunge: Interrupted.\n")
    os._exit(130)


def _interrupt(*_: Any) -> None:
    global _pressed
    before, _pressed = _pressed, time.monotonic()
    if not before or _pressed - before > AGAIN:
        raise KeyboardInterrupt


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    """Leave on a Ctrl-C in a callback of the interpreter, which would only be printed."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        leave()
    sys.__unraisablehook__(found)


__all__ = ["main", "start"]
