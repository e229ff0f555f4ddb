"""The cache between runs: readouts, reference values, attack results, answers, gold models.

An entry is whole, or it is computed again. Its name is a digest of everything that determines its content. Each entry
holds the digest of its own bytes, so that a truncated or damaged one counts as absent. This does not protect against
somebody who can write to the folder: such a folder is refused. Entries hold texts of the forget set, so only their
owner may read them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from expunge.core.errors import BadInput
from expunge.core.files import (
    PRIVATE,
    canonical,
    delete,
    digest,
    digest_folder,
    read_json,
    sweep,
    write_json,
)

KINDS = (
    "readouts",
    "references",
    "attacks",
    "answers",
    "judgements",
    "shadows",
    "gold",
    "worlds",
    "bases",
    "models",
    "catalogue",
)
"""The folders of the cache."""
OF_RUNS = KINDS[:7]
"""The kinds that hold what runs read, generated and trained."""
ENTRY = re.compile(rf"({'|'.join(KINDS)})(/[\w@][\w@-]*)+(\.json)?", re.ASCII)
"""An entry's path below the cache. A name read from a file that others may have written must match this."""
JOURNAL = "caches.jsonl"
"""In the folder of a run or another command: the entries that it wrote or used, which `purge` deletes."""
SUMS = "sums.json"
"""In an entry that is a folder: file -> SHA-256."""
SCRATCH = "scratch"
"""Where entries are written before they are renamed into place; leftovers of killed processes are deleted."""


@dataclass
class Journal:
    """A file that names the entries written or used, one JSON string per line."""

    path: Path
    known: set[str] = field(default_factory=set)


_journals: ContextVar[tuple[Journal, ...]] = ContextVar("journals", default=())
"""The innermost last: a run inside a tuning writes to its own journal and to the tuning's."""
_swept: set[tuple[int, Path]] = set()
"""(process, cache folder) whose scratch was swept: once per process."""


def cache_folder() -> Path:
    """The cache: EXPUNGE_CACHE, or the platform's cache folder. Raises BadInput where others may write to it."""
    named = os.environ.get("EXPUNGE_CACHE")
    folder = Path(named) if named else Path(platformdirs.user_cache_dir("expunge"))
    with contextlib.suppress(OSError, ValueError):  # an invalid path: `fits_cache` reports it
        if folder.is_dir():
            _check_owner(folder)
    return folder


def path_of(entry: str) -> Path:
    """An entry's path. Raises BadInput where its kind's folder is a link or a file, or others may write to it."""
    root = cache_folder()
    folder = root / entry.partition("/")[0]
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BadInput.of(
            "EXPUNGE_CACHE", str(folder), "is not a folder of the cache", "delete it, or set another EXPUNGE_CACHE"
        )
    if folder.is_dir():
        _check_owner(folder)
    return root / entry


def make_folder(kind: str) -> Path:
    """The cache's folder of a kind, created for its owner alone where it is missing. Raises BadInput."""
    folder = path_of(kind)
    for one in (folder.parent, folder):
        one.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _check_owner(folder: Path) -> None:
    """Refuse a folder whose entries another user could have written, as ssh does with keys."""
    found = folder.stat()
    if not hasattr(os, "geteuid"):  # Windows has access lists instead
        return
    if found.st_uid != os.geteuid():
        raise BadInput.of(
            "EXPUNGE_CACHE",
            str(folder),
            "belongs to another user, whose entries would be trusted",
            "set EXPUNGE_CACHE to a folder of your own",
        )
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise BadInput.of(
            "EXPUNGE_CACHE",
            str(folder),
            "is writable by other users, whose entries would be trusted",
            f"run chmod go-w {folder}",
        )


def holds(path: Path) -> bool:
    """True for a path inside the cache."""
    return cache_folder() in path.parents


# -- the journal: the entries that a run wrote or used, for purge -----------------------------------


@contextlib.contextmanager
def journal(path: Path) -> Iterator[None]:
    """Within the block, append the name of every entry written or used to this file, before the entry is written."""
    _sweep(cache_folder())  # even where nothing will be written: leftovers of a killed process must not wait for that
    if path.is_file() and not path.read_bytes().endswith(b"\n"):  # a killed process cut the last line short
        _append(path, "")
    token = _journals.set((*_journals.get(), Journal(path, set(read_journal(path)))))
    try:
        yield
    finally:
        _journals.reset(token)


def has_journal() -> bool:
    """True within a block of `journal`: what is cached there, `purge` finds."""
    return bool(_journals.get())


def note(entry: str) -> None:
    """Append an entry's name ("readouts/KEY") to the open journals that lack it."""
    for one in _journals.get():
        if entry not in one.known:
            _append(one.path, json.dumps(entry))
            one.known.add(entry)


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_journal(path: Path) -> list[str]:
    """The entries that a journal names, sorted; truncated lines and invalid names are ignored."""
    if not path.is_file():
        return []
    found = set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, str) and ENTRY.fullmatch(entry):
                found.add(entry)
    return sorted(found)


# -- entries --------------------------------------------------------------------------------------


def load(entry: str) -> Any:
    """The JSON value of an entry; None where it is absent or damaged (it is then deleted)."""
    note(entry)
    path = path_of(entry)
    if path.is_symlink() or not path.is_file():
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        found = read_json(path)
        if digest([entry, found["value"]]) == found["sha256"]:
            return found["value"]
    delete(path)
    return None


def save(entry: str, value: Any) -> None:
    """Write a JSON value as an entry."""
    note(entry)
    value = json.loads(canonical(value))
    with _new_entry(entry) as path:
        path.write_text(canonical({"sha256": digest([entry, value]), "value": value}), encoding="utf-8")
        path.chmod(PRIVATE)


@contextlib.contextmanager
def saving(entry: str) -> Iterator[Path]:
    """A folder to write to; it becomes the entry when the block ends."""
    note(entry)
    with _new_entry(entry) as path:
        path.mkdir(mode=0o700)
        yield path
        seal(path, entry)


def seal(folder: Path, entry: str) -> None:
    """Write an entry's name and the digests of its files into its folder, and restrict all of it to its owner."""
    write_json(folder / SUMS, {"entry": entry, "files": digest_folder(folder)})
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else PRIVATE)


def whole(folder: Path) -> bool:
    """True where this folder is the entry of its name, with exactly the files that were recorded."""
    try:
        if not (folder / SUMS).is_file() or any(path.is_symlink() for path in (folder, *folder.rglob("*"))):
            return False
        sums, there = read_json(folder / SUMS), digest_folder(folder)
        there.pop(SUMS)
        return bool(there) and sums == {"entry": folder.relative_to(cache_folder()).as_posix(), "files": there}
    except (OSError, ValueError, KeyError, RecursionError):
        return False


def load_folder(entry: str) -> Path | None:
    """The folder of an entry; None where it is absent or damaged (it is then deleted)."""
    note(entry)
    path = path_of(entry)
    if whole(path):
        return path
    delete(path)
    return None


@contextlib.contextmanager
def _new_entry(entry: str) -> Iterator[Path]:
    """A path to write to, renamed to the entry's path at the end.

    Nothing is synced: after a loss of power the digest reveals damage.
    """
    with scratch() as place:
        yield place / "entry"
        _replace(place / "entry", path_of(entry))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder that is deleted when the block ends.

    It is in the cache's scratch under a lock, which distinguishes it from the leftovers of a killed process.
    """
    _sweep(cache_folder())
    place = make_folder(SCRATCH) / secrets.token_hex(8)
    with FileLock(place.with_suffix(".lock")) as lock:
        place.mkdir(mode=0o700)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)


def _replace(written: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.replace(written, final)
    except OSError:
        if not whole(final):  # otherwise another process was faster
            delete(final)
            os.replace(written, final)


def _sweep(root: Path) -> None:
    """Sweep the scratch once per process."""
    if (os.getpid(), root) not in _swept:
        _swept.add((os.getpid(), root))
        sweep_scratch()


def sweep_scratch() -> None:
    """Delete the unfinished entries of killed processes; those of living ones stay."""
    scratch = path_of(SCRATCH)
    if not scratch.is_dir():
        return
    ours = [path for path in scratch.iterdir() if re.fullmatch("[0-9a-f]{16}", path.stem)]
    for path in {path.with_suffix(".lock") for path in ours}:
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            os.unlink(path)


def remove(entry: str) -> list[Path]:
    """Delete an entry and a killed process's leftovers of it; returns the deleted paths. An entry in use stays."""
    path = path_of(entry)
    lock = path.with_suffix(".lock")
    try:
        with FileLock(lock, timeout=0) if lock.is_file() else contextlib.nullcontext():
            gone = [one for one in (path, path.with_name(path.name + ".training")) if delete(one)]
            sweep(path.parent, path.name)
            lock.unlink(missing_ok=True)
    except Timeout:
        return []
    return gone
