"""The files that may lie in a model's folder, which anyone may have written.

Plain files, links to plain files (the hub's cache is made of links to its blobs, and weights are often shared by
links), and folders that are no links: a linked one would bring in parts that lie elsewhere and change later.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput
from expunge.models import schemas

READ = ("", "guard", "additional_chat_templates", "1_Pooling")
"""Where a model's own files lie; whatever else there is nobody opens."""


def check_folder(folder: Path, field: str) -> None:
    """Raises BadInput for what blocks or never ends where files are expected, linked parts, and shards elsewhere."""
    for name in READ:
        place = folder / name
        if not place.is_dir():
            continue
        if name and place.is_symlink():
            raise _link_fault(field, place)
        for entry in _entries(place, field):
            _plain(entry, field)
    for path in sorted(folder.glob("*.index.json")):
        schemas.read(path, schemas.Index, field, "save the model again")


def check_whole(folder: Path, field: str) -> None:
    """The same for all that lies below a folder whose parts are copied as they are: no link leads out of it.

    The blobs of a hub cache that the folder itself belongs to are not outside. Raises BadInput.
    """
    homes = [folder.resolve()]
    if homes[0].parent.name == "snapshots":
        homes.append(homes[0].parents[1] / "blobs")
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop(), field):
            path = Path(entry.path)
            _plain(entry, field)
            if entry.is_symlink() and (path.is_dir() or not any(path.resolve().is_relative_to(home) for home in homes)):
                raise _link_fault(field, path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)


def _entries(folder: Path, field: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise BadInput.of(field, str(folder), f"cannot be read ({error.strerror})", "check its permissions") from None


def _plain(entry: os.DirEntry[str], field: str) -> None:
    path = Path(entry.path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise BadInput.of(field, entry.path, "is not a plain file, and reading it might never end", "take it away")


def _link_fault(field: str, path: Path) -> BadInput:
    return BadInput.of(field, str(path), "is a link that leads out of the model's folder", "copy what it leads to")


@contextlib.contextmanager
def foreign(field: str, value: Any, what: str, fix: str) -> Iterator[None]:
    """Whatever a library raises over a folder that anyone may have written, as bad input in one sentence.

    what: what cannot be done, as "cannot be opened".
    """
    try:
        yield
    except BadInput:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # a panic in Rust is neither
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BadInput.of(field, value, f"{what} ({first[:300]})", fix) from None
