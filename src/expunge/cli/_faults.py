"""What went wrong outside of us, or with what was given to us, in one sentence."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

DISK = "free some space"
WAYS = {
    errno.ENOSPC: DISK,
    errno.EDQUOT: DISK,
    errno.EFBIG: "raise the limit on the size of files, or choose another disk",
    errno.EROFS: "choose a place that may be written to",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close some of this machine's files",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the file system",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check the links on the way",
    errno.ENOTDIR: "choose another place",
    errno.EISDIR: "choose another place",
}
"""Number of a system's error -> what to do about it."""
RUNS = ("run", "train")
"""Verbs that --resume continues."""
STARTED = ("bench", "tune", "demo")
"""Verbs that go on where they were when they are done again."""


def sentence(error: BaseException, arguments: list[str]) -> str | None:
    """The sentence for an error of the machine or of bad input; None where it is a fault of ours."""
    for one in _chain(error):
        if (number := _number(one)) is not None:
            place = _place(one)
            what = f"{place} cannot be used" if place else "a file cannot be used"
            return f"{what} ({os.strerror(number)}); {WAYS[number]}{_onwards(arguments)}."
    if isinstance(error, MemoryError):
        return f"there is not enough memory; free some, or take a smaller batch{_onwards(arguments)}."
    if isinstance(error, RecursionError):
        return "what was given is nested too deeply; write it out plainly."
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int | None:
    """The system's number of an error; those of libraries in Rust say it in words alone."""
    if isinstance(error, OSError):
        return error.errno if error.errno in WAYS else None
    said = re.search(r"os error (\d+)|\bcode: (\d+), kind:", str(error)[:2000])
    number = int(said[1] or said[2]) if said else None
    return number if number in WAYS else None


def _place(error: BaseException) -> str:
    """The path in question: the error's own, else that which the innermost of our functions was working on."""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes | os.PathLike):
        return os.fsdecode(error.filename)
    found = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        inside = trace.tb_frame
        if inside.f_globals.get("__name__", "").startswith("expunge."):
            paths = [
                value
                for name in ("path", "final", "folder", "out")
                if isinstance(value := inside.f_locals.get(name), Path)
            ]
            found = str(paths[0]) if paths else found
        trace = trace.tb_next
    return found


def _onwards(arguments: list[str]) -> str:
    verb = next((word for word in arguments if not word.startswith("-")), "")
    if verb in RUNS and "--plan" not in arguments:
        return ", then run the same command with --resume to continue"
    return ", then do the same again to go on" if verb in STARTED else ", then try again"
