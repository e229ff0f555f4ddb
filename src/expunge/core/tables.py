"""Tables given in Python: pandas frames and data sets of `datasets`, as lists of rows."""

from __future__ import annotations

import os
from typing import Any


def plain_source(value: Any) -> Any:
    """A frame or a data set as a list of rows, a path as text; all else as it is. Neither library is imported."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    kind = {(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__}
    if ("pandas", "DataFrame") in kind:
        return [
            {key: None if _missing(cell) else cell for key, cell in row.items()} for row in value.to_dict("records")
        ]
    if ("datasets", "Dataset") in kind:
        return [dict(row) for row in value.with_format(None)]
    return value


def _missing(cell: Any) -> bool:
    """Whether a frame's cell is empty: NaN, NaT or NA, none of which equals itself."""
    if type(cell).__name__ == "NAType":
        return True
    return (isinstance(cell, float) and cell != cell) or type(cell).__name__ == "NaTType"
