"""The catalogue as `expunge list` prints it, kept in the cache: the cards are in files that import torch."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import expunge
from expunge.core import cache
from expunge.core.errors import BadInput
from expunge.core.files import digest


def catalogue_of(what: str, name: str | None) -> Any:
    """The rows of a kind, or one of them in full where a name is given; as computed while the same files are there."""
    entry = f"catalogue/{digest([what, name, sorted(_files())])}.json"
    with contextlib.suppress(BadInput, OSError):  # a cache that cannot be used costs time, no more
        if (text := cache.load(entry)) is not None:
            return json.loads(text)
    from expunge.workflows.list import catalogue, details

    rows = catalogue(what) if name is None else details(what, name)
    with contextlib.suppress(BadInput, OSError):
        cache.save(entry, json.dumps(rows))  # as text, which keeps the order of keys
    return rows


def _files() -> Iterator[tuple[str, int, int]]:
    """(path, time of the last change, size) of the files of this package, and of others that add plug-ins."""
    for folder in (Path(expunge.__file__).parent, *_others()):
        for path in [folder] if folder.is_file() else folder.rglob("*"):
            if path.suffix in (".py", ".yaml"):
                status = path.stat()
                yield str(path), status.st_mtime_ns, status.st_size


def _others() -> Iterator[Path]:
    """The file or folders of each other package that adds plug-ins; none is imported."""
    for entry in (entry for package in importlib.metadata.distributions() for entry in package.entry_points):
        if entry.group.startswith("expunge."):
            found = importlib.util.find_spec(entry.module.partition(".")[0])
            if found is not None:
                yield from map(Path, found.submodule_search_locations or [str(found.origin)])
