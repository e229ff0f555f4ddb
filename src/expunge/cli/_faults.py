"""One sentence for errors of the machine and of the input."""

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
    errno.EROFS: "choose a writable folder",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close some files on this machine",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the file system",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check the links in the path",
    errno.ENOTDIR: "choose another path",
    errno.EISDIR: "choose another path",
}
"""errno -> fix."""
RUNS = ("run", "train")
"""Commands that --resume continues."""
STARTED = ("bench", "tune", "demo")
"""Commands that continue when they are run again."""


def sentence(error: BaseException, arguments: list[str]) -> str | None:
    """The sentence for an error of the machine or the input; None for an internal error."""
    for one in _chain(error):
        if (number := _number(one)) is not None:
            place = _place(one)
            what = f"{place} cannot be used" if place else "a file cannot be used"
            return f"{what} ({os.strerror(number)}); {WAYS[number]}{_onwards(arguments)}."
    if isinstance(error, MemoryError):
        return f"there is not enough memory; free some, or use a smaller batch{_onwards(arguments)}."
    if isinstance(error, RecursionError):
        return "the input is nested too deeply; flatten it."
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int | None:
    """The errno of an error; libraries in Rust give it only in their message."""
    if isinstance(error, OSError):
        return error.errno if error.errno in WAYS else None
    match = re.search(r"os error (\d+)|\bcode: (\d+), kind:", str(error)[:2000])
    number = int(match[1] or match[2]) if match else None
    return number if number in WAYS else None


def _place(error: BaseException) -> str:
    """The path concerned: the error's own, else the one in the innermost of our functions."""
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
    return ", then run the same command again to continue" if verb in STARTED else ", then try again"
