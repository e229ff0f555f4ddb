"""A run's folder: who may use it, what an unfinished one holds, and when it is finished."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from expunge.core.errors import BadInput, Interrupted
from expunge.core.files import canonical, finite, read_json, write_text
from expunge.core.request import Request
from expunge.plan import Plan
from expunge.training import processes

LAST = "certificate.json"
"""The last file that a run writes: the run is finished when it stands."""


def finished(request: Request) -> bool:
    """Does the folder hold this very request's finished run. Raises BadInput for another's."""
    out = Path(request.out)
    if not (out / LAST).is_file():
        return False
    _same(request, out)
    return True


def _same(request: Request, out: Path) -> None:
    """Raises BadInput where the folder's request is another one."""
    path = out / "request.yaml"
    if not path.is_file():
        return
    theirs, ours = yaml.safe_load(path.read_text(encoding="utf-8")), finite(request.resolved())
    if canonical(theirs) != canonical(ours):
        changed = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
        raise BadInput.of("--resume", str(out), f"holds the run of another request (changed: {', '.join(changed)})",
                          "resume with the same request, or choose another folder")  # fmt: skip


@contextlib.contextmanager
def held(plan: Plan, *, resume: bool, replace: bool) -> Iterator[Path]:
    """The folder, locked against a second process, with the request as resolved in it.

    Raises BadInput where another process holds it; Ctrl-C becomes Interrupted, with how to go on.
    With `replace` the run is made beside the old one and takes its place at the end.
    """
    out = Path(plan.request.out)
    folder = out.with_name(f".{out.name}.new") if replace else out
    if resume and not replace:
        _same(plan.request, out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    if processes.main():
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadInput.of("out", str(out), "is in use by another process", "wait, or choose another folder") from None
    try:
        if processes.main():
            text = yaml.safe_dump(finite(plan.request.resolved()), sort_keys=False, allow_unicode=True)
            write_text(folder / "request.yaml", text)
        processes.barrier()
        yield folder
        if replace and processes.main():
            _take_place(folder, out)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted. Go on with the same command and --resume ({out}).") from None
    finally:
        if lock.is_locked:
            lock.release()


def _take_place(folder: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def evidence_of(folder: Path) -> dict[str, object]:
    """The evidence of a finished run. Raises BadInput."""
    path = folder / "evidence.json"
    if not path.is_file():
        raise BadInput.of("run", str(folder), "holds no evidence.json", "give the folder of a finished run")
    return dict(read_json(path))
