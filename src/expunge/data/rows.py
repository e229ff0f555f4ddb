"""Rows of a large split, kept in a temporary file: memory holds their places alone."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from typing import IO, Any, overload

import numpy as np

from expunge.core.card import Example
from expunge.core.errors import BadInput

IN_MEMORY = 10_000
"""Rows that are kept as they are: a row takes some 4 kB as a dict, and a sixteenth of a kB by its place."""


class Rows(Sequence[Example]):
    """Examples in a file that has no name and goes with them; each is parsed when it is asked for.

    A slice, and what `take` gives, are views of the same file.
    """

    def __init__(self, file: IO[bytes], places: np.ndarray) -> None:
        self._file = file
        self._places = places
        """[N, 2] first byte and number of bytes."""

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: int | slice) -> Example | Rows:
        if isinstance(at, slice):
            return Rows(self._file, self._places[at])
        first, size = self._places[at].tolist()
        found: Example = json.loads(os.pread(self._file.fileno(), size, first))
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def take(self, places: Sequence[int] | np.ndarray) -> Rows:
        """The rows at these places."""
        return Rows(self._file, self._places[np.asarray(places, dtype=np.intp)])


def take(rows: Sequence[Example], places: Sequence[int] | np.ndarray) -> Sequence[Example]:
    """The rows at these places: of a large split a view, else a list."""
    return rows.take(places) if isinstance(rows, Rows) else [rows[i] for i in places]


def keep(rows: Iterable[Example]) -> Sequence[Example]:
    """The rows as a list; in a file where they are many. Those that JSON cannot hold (arrays) stay in memory.

    Raises BadInput where the disk has no room for them.
    """
    waiting = iter(rows)
    first = list(itertools.islice(waiting, IN_MEMORY + 1))
    if len(first) <= IN_MEMORY:
        return first
    waiting, sizes = itertools.chain(first, waiting), array("q")
    file = tempfile.TemporaryFile()
    try:
        for row in waiting:
            try:
                line = json.dumps(row).encode()
            except TypeError:
                return [*_of_sizes(file, sizes), row, *waiting]
            sizes.append(file.write(line))
        return _of_sizes(file, sizes)
    except OSError as error:
        where, why = tempfile.gettempdir(), f"cannot hold the data ({error.strerror})"
        raise BadInput.of("TMPDIR", where, why, "set TMPDIR to a folder with more room") from None


def _of_sizes(file: IO[bytes], sizes: array[int]) -> Rows:
    """The rows of a file that has them one after another, each of so many bytes."""
    file.flush()
    size = np.array(sizes, dtype=np.int64)
    return Rows(file, np.stack([size.cumsum() - size, size], axis=1))
