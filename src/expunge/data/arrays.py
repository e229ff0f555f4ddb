"""Arrays in JSON: pictures in bytes keep their type, which a list of numbers would lose."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.core.errors import BadInput

KEYS = {"dtype", "shape", "base64"}


def as_json(value: Any) -> Any:
    """A value that JSON lacks: bytes of colour as {"dtype": "uint8", "shape", "base64"}, other arrays as lists, else as
    text."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        packed = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"dtype": "uint8", "shape": list(value.shape), "base64": packed}
    return value.tolist() if hasattr(value, "tolist") else str(value)


def from_json(value: Any, where: str) -> Any:
    """The array that `as_json` wrote; any other value as it is. Raises BadInput for a damaged one."""
    if not isinstance(value, Mapping) or set(value) != KEYS:
        return value
    try:
        shape = [int(side) for side in value["shape"]]
        raw = base64.b64decode(value["base64"], validate=True)
        good = value["dtype"] == "uint8" and min(shape) > 0 and math.prod(shape) == len(raw)
    except (TypeError, ValueError, OverflowError, binascii.Error):
        good = False
    if not good:
        raise BadInput.of(where, str(value["shape"]), "holds a damaged picture", "write the file again")
    return np.frombuffer(raw, np.uint8).reshape(shape)
