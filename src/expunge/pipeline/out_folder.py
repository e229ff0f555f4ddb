"""The folder of a verb that writes figures and no model: its lock, and the leavings of killed processes."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from expunge.core import cache
from expunge.core.errors import BadInput, ExpungeError
from expunge.core.files import new_folder, sweep, write_text
from expunge.ledger.certificate import SALT
from expunge.ledger.examples import EXAMPLES, write_evidence
from expunge.pipeline.folders import free_folder

REPORT = "report.html"
LEFT = frozenset({cache.JOURNAL, REPORT, EXAMPLES})
"""Files that a killed process may have left before its last one."""
QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")


def free(out: str | Path, left: frozenset[str] = LEFT) -> None:
    """Check that the folder is empty but for the files that a killed process of the same verb left. Raises BadInput."""
    free_folder(Path(out), left)


@contextlib.contextmanager
def hold(out: str | Path | None) -> Iterator[None]:
    """Inside, no other process of ours writes to `out`, and the cache entries that are made or used are noted there.

    Files that killed processes left half-written are deleted. Where bad input shows only now, a folder that was made
    for nothing is removed again. Without a folder nothing is locked. Raises BadInput where another process holds it.
    """
    if out is None:
        yield
        return
    folder = Path(out)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput.of("out", str(out), "is in use by another process", "wait, or choose another folder") from None
    except OSError as error:
        raise BadInput.of("out", str(out), f"cannot be made ({error.strerror})", "choose another folder") from None
    try:
        sweep(folder)
        with cache.journal(folder / cache.JOURNAL):
            yield
    except BadInput:
        if made and {path.name for path in folder.iterdir()} <= {".lock", SALT}:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                for place in made[1:]:
                    place.rmdir()
        raise
    finally:
        lock.release()


@contextlib.contextmanager
def whole(out: str | Path) -> Iterator[Path]:
    """A folder to write to, which appears under its name when the block ends, or not at all.

    The leavings of a killed process are deleted. Raises BadInput where another process makes the same folder.
    """
    folder = Path(out)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput.of("out", str(out), "is in use by another process", "wait, or choose another folder") from None
    try:
        sweep(folder.parent, folder.name)
        with new_folder(folder) as written:
            yield written
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def write(out: str | Path, evidence: dict[str, Any], render: Callable[[dict[str, Any]], str] | None = None) -> None:
    """Write report.html, where there is a page, and last evidence.json: with it the figures are finished."""
    if render is not None:
        write_text(Path(out) / REPORT, render(evidence))
    write_evidence(Path(out), evidence)


def sentence(error: BaseException, redact: bool) -> str:
    """An error as a table of results shows it. redact: without what it quotes, which may be a row of the data."""
    if isinstance(error, ExpungeError):
        text = str(error).splitlines()[0]
    else:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        text = f"{type(error).__name__}: {first}"
    return without_quotations(text) if redact else text


def without_quotations(text: str) -> str:
    """A sentence with its quotations left out."""
    return QUOTED.sub("...", text)
