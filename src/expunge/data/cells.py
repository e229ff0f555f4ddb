"""Cells that look otherwise than they are: lists written as text, and texts of signs that nobody sees."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from expunge.core.errors import BadInput

PYTHON_LIST = re.compile(r"\[\s*(['\"]).*\1\s*,?\s*\]", re.S)
"""A list of texts as Python or numpy prints it, which a table then holds as one text."""


def is_blank(text: str) -> bool:
    """Whether a text has no sign that is seen: blanks, controls, and marks of width zero."""
    return not text.strip() or all(unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp", "Zs") for sign in text)


def parse_list(value: Any, key: str, where: str) -> Any:
    """A cell that holds a list of texts in JSON as that list; any other value as it is.

    A CSV has no lists: whoever writes one puts JSON into a cell, or what Python prints. Raises BadInput for the latter,
    whose quotes do not say where a text ends.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        if PYTHON_LIST.fullmatch(value.strip()):
            fix = 'write it as JSON (["one", "two"]), or give the data as JSONL'
            raise BadInput.of(where, value[:80], f"under {key!r} is a list as Python prints it", fix) from None
        return value
    texts = isinstance(found, list) and bool(found) and all(isinstance(one, str) for one in found)
    return found if texts else value
