"""A run's folder: its lock, the work of an unfinished run in it, and the files of a finished one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from expunge.core import cache, processes
from expunge.core.documents import parse_yaml
from expunge.core.errors import BadInput, Interrupted
from expunge.core.files import (
    TEMPORARY,
    canonical,
    delete,
    finite,
    read_json,
    sweep,
    temporary,
    write_text,
)
from expunge.core.request import Request, redacted
from expunge.ledger.certificate import SALT, read_salt, salt_of, seal, write_salt
from expunge.pipeline.plan import Plan

SCRATCH = "checkpoint"
LAST = "certificate.json"
"""The last file that a run writes: with it the run is finished."""


def finished(request: Request) -> bool:
    """Whether the folder holds this very request's finished run. Raises BadInput for another's."""
    out = Path(request.out)
    try:
        there = (out / LAST).is_file()
    except OSError:  # no path at all: plan says so
        return False
    if there:
        same(request, out)
        _settle(out)
    return there


def _settle(out: Path) -> None:
    """Delete the scratch of a finished run that was killed before it could do so itself; nothing where it is in use."""
    left = [path for path in out.iterdir() if path.name == SCRATCH or TEMPORARY.fullmatch(path.name)]
    if left:
        with contextlib.suppress(Timeout), FileLock(out / ".lock", timeout=0):
            for path in left:
                delete(path)


def same(request: Request, out: Path) -> None:
    """Raises BadInput where the folder's request is another one."""
    theirs = request_in(out)
    if theirs is None:
        return
    ours = finite(request.resolved())
    if request.redacted and canonical(theirs) == canonical(redacted(ours)) and _sealed(out, ours):
        return
    if canonical(theirs) != canonical(ours):
        changed = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
        raise BadInput.of(
            "--resume",
            str(out),
            f"holds the run of another request (changed: {', '.join(changed)})",
            "resume with the same request, or choose another folder",
        )


def request_in(out: Path, name: str = "request.yaml") -> dict[str, Any] | None:
    """The request that the folder's run was started with; None where there is none. Raises BadInput."""
    path = out / name
    try:
        if not path.is_file():
            return None
        found = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput.of(
            "out", str(path), f"cannot be read ({type(error).__name__})", "choose another folder"
        ) from None
    if not isinstance(found, dict):
        raise BadInput.of("out", str(path), "holds no request", "choose another folder")
    return found


@contextlib.contextmanager
def held(plan: Plan, *, resume: bool, replace: bool) -> Iterator[Path]:
    """The folder, locked against a second process, with the request as resolved in it.

    Raises BadInput where another process holds it or it cannot be made; Ctrl-C becomes Interrupted,
    with how to go on. Where bad input shows only now (weights that do not open), what was made is
    removed again. With `replace` the run is made in another folder and takes the old one's place at the end.
    """
    out = Path(plan.request.out)
    folder = out.with_name(f".{out.name}.new") if replace else out
    if resume and not replace:
        same(plan.request, out)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        if processes.main():
            lock.acquire(timeout=0)
    except Timeout:
        raise BadInput.of("out", str(out), "is in use by another process", "wait, or choose another folder") from None
    except OSError as error:
        raise BadInput.of("out", str(out), f"cannot be made ({error.strerror})", "choose another folder") from None
    try:
        if processes.main():
            sweep(folder)
            if replace:
                _clear_other(plan.request, folder)
            write_request(folder, plan.request.resolved())
        processes.barrier()
        with cache.journal(folder / SCRATCH / cache.JOURNAL):
            yield folder
        if replace and processes.main():
            _take_place(folder, out)
    except KeyboardInterrupt:
        how = "Do the same again to go on" if replace else f"Go on with the same command and --resume ({out})"
        raise Interrupted(f"Interrupted. {how}.") from None
    except BadInput:
        if made and processes.main():
            _take_away(folder, made)
        raise
    finally:
        if lock.is_locked:
            lock.release()


def _take_away(folder: Path, made: list[Path]) -> None:
    """Remove a folder that holds nothing of worth yet, and those above it that were made for it.

    Where the cache already holds something of the run it stays, so that `purge` can tell what.
    """
    if {p.name for p in folder.iterdir()} <= {".lock", "request.yaml", "log.jsonl", SALT}:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            for place in made[1:]:
                place.rmdir()


def _clear_other(request: Request, folder: Path) -> None:
    """Empty the folder of an unfinished run of another request: it is our own scratch."""
    try:
        same(request, folder)
    except BadInput:
        for path in folder.iterdir():
            if path.name != ".lock":
                delete(path)


def _take_place(folder: Path, out: Path) -> None:
    sweep(out.parent, out.name)
    old = temporary(out, "old")
    if out.exists():
        out.rename(old)
    folder.rename(out)
    delete(old)


def evidence_of(folder: Path) -> dict[str, Any]:
    """The evidence of a finished run. Raises BadInput."""
    path = folder / "evidence.json"
    try:
        found = read_json(path)
        if not {"scores", "cost", "verdict"} <= set(found) or "passed" not in found["verdict"]:
            raise ValueError("scores, cost or verdict are missing")
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput.of("run", str(folder), "holds no evidence.json", "give the folder of a finished run") from None
    except (OSError, ValueError, TypeError) as error:
        raise BadInput.of("run", str(path), f"cannot be read ({error})", "give the folder of a finished run") from None
    return dict(found)


def write_request(folder: Path, request: dict[str, Any], name: str = "request.yaml") -> None:
    """request.yaml, as resolved."""
    write_text(folder / name, yaml.safe_dump(finite(request), sort_keys=False, allow_unicode=True))


def close(folder: Path, request: dict[str, Any], redact: bool) -> None:
    """Write the cache's entries, which a purge must find, into the holder's file.

    redact: also take everything that may name the forget set out of request.yaml (a resume needed it until now), and
    seal the whole with the run's salt, so that another request can still be distinguished from it.
    """
    salt = salt_of(folder)
    held: dict[str, Any] = {"salt": salt.hex(), "caches": cache.read_journal(folder / SCRATCH / cache.JOURNAL)}
    if redact:
        held["request"] = seal(request, salt)
    write_salt(folder, held)
    if redact:
        write_request(folder, redacted(request))


def _sealed(folder: Path, request: dict[str, Any]) -> bool:
    """Whether this is the request that was sealed; true of any request once a purge has taken the seal."""
    kept = read_salt(folder).get("request") if (folder / SALT).is_file() else None
    return kept is None or kept == seal(request, salt_of(folder))
