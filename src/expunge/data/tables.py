"""CSV tables, read as they are written: cells stay texts, and each stands under its own column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from expunge.core.errors import BadInput

OTHER_SIGNS = (";", "\t", "|")
"""What divides the cells of tables that are no CSV."""


def keep_texts(builder: Any, files: Sequence[str], field: str) -> None:
    """Have a CSV's cells read as they are written: `NA` and `007` are texts, and only an empty cell is empty.

    builder: of `datasets`. Raises BadInput for heads that do not say which cell stands under which column.
    """
    import datasets

    builder.config.keep_default_na = False
    heads = [_head(name, builder.config.sep, field) for name in files]
    if heads and builder.config.features is None and all(head == heads[0] for head in heads):
        texts = datasets.Features({name: datasets.Value("string") for name in heads[0]})
        builder.config.features = builder.info.features = texts


def _head(path: str, sign: str, field: str) -> list[str]:
    """The names of a table's columns. Raises BadInput where two are alike, or the first row has more cells."""
    import pandas  # takes a second

    given: dict[str, Any] = {"sep": sign, "nrows": 1, "dtype": str, "keep_default_na": False}
    first = pandas.read_csv(path, **given)
    written = pandas.read_csv(path, header=None, **given).iloc[0].tolist()
    other = next((one for one in OTHER_SIGNS if len(written) == 1 and one in written[0]), None)
    if other is not None:
        raise BadInput.of(field, path, f"divides its cells by {other!r}", "save it with commas (.csv) or tabs (.tsv)")
    if not isinstance(first.index, pandas.RangeIndex):
        why = f"has more cells in its first row than columns ({len(written)})"
        raise BadInput.of(field, path, why, "give each cell a column, and put quotes round a cell that holds a comma")
    if twice := sorted({str(name) for name in written if name and written.count(name) > 1}):
        raise BadInput.of(field, path, f"has the column {twice[0]!r} twice", "leave one out, or give it another name")
    return [str(name) for name in first.columns]


def without_empty(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A CSV's rows, their empty cells as None."""
    return ({name: None if cell == "" else cell for name, cell in row.items()} for row in rows)
