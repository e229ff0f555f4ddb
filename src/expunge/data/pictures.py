"""Pictures of a table as arrays, of bounded size: their headers are read before any is decoded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from expunge.core.errors import BadInput

FILE = 256 * 2**20
"""Bytes of a picture as it is stored."""
PIXELS = 16 * 10**6
"""Of one picture."""
TOGETHER = 2**30
"""Bytes of all pictures of a table, decoded."""
SEVERAL = ("GIF", "PNG", "TIFF", "WEBP")
"""Formats whose files may hold a sequence; a camera's MPO holds one picture and its previews."""


def pixels(
    rows: list[dict[str, Any]], columns: Mapping[str, Any], allowed: Callable[[str], bool], field: str
) -> list[dict[str, Any]]:
    """The rows with arrays for pictures. columns: name -> the kind of picture that `datasets` found.

    allowed: may this path be read? A row may name any. Raises BadInput with the row.
    """
    together = 0
    for number, row in enumerate(rows, 1):
        for name in columns:
            together += _size(row.get(name), allowed, field, number)
            if together > TOGETHER:
                raise BadInput.of(
                    field,
                    f"row {number}",
                    f"brings the pictures to more than {TOGETHER // 2**20} MiB",
                    "give fewer, or smaller ones",
                )
    for number, row in enumerate(rows, 1):
        for name, kind in columns.items():
            if row.get(name) is not None:
                row[name] = _decode(row[name], kind, allowed, field, number)
    return rows


def _decode(value: Mapping[str, Any], kind: Any, allowed: Callable[[str], bool], field: str, number: int) -> np.ndarray:
    """The colours of a picture, turned as its EXIF says. Raises BadInput."""
    try:
        found = type(kind)(mode=kind.mode).decode_example({"bytes": _raw(value, allowed), "path": None})
    except Exception as error:  # a header that is sound says nothing of what follows
        raise _unreadable(value, error, field, number) from None
    return _array(found)


def _unreadable(value: Mapping[str, Any], error: Exception, field: str, number: int) -> BadInput:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    why = f"holds a picture{_name_of(value)} that cannot be read ({first})"
    return BadInput.of(field, f"row {number}", why, "save it again")


def _name_of(value: Mapping[str, Any]) -> str:
    return f" ({Path(str(value['path'])).name})" if value.get("path") else ""


def _array(picture: Any) -> np.ndarray:
    """The colours of a picture as uint8: not a palette's numbers, nor 16 bits or one bit per pixel."""
    if picture.mode.startswith("I;16"):
        return (np.asarray(picture) >> 8).astype(np.uint8)
    if picture.mode == "1":
        return np.asarray(picture.convert("L"))
    if picture.mode not in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(picture)
    colours = np.asarray(picture.convert("RGB"))
    grey = (colours[..., 0] == colours[..., 1]).all() and (colours[..., 1] == colours[..., 2]).all()
    return colours[..., 0] if grey else colours


def _size(value: Any, allowed: Callable[[str], bool], field: str, number: int) -> int:
    """The bytes of a picture when it is decoded, from its header. Raises BadInput."""
    if value is None:
        return 0
    where, named = f"row {number}", _name_of(value)
    try:
        raw = _raw(value, allowed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw)) as picture:
                width, height, bands, mode = *picture.size, len(picture.getbands()), picture.mode
                frames = getattr(picture, "n_frames", 1) if picture.format in SEVERAL else 1
    except UnidentifiedImageError:
        raise BadInput.of(field, where, f"is of no kind of picture that we read{named}", "save it as PNG") from None
    except Exception as error:
        raise _unreadable(value, error, field, number) from None
    if frames > 1:
        why = f"holds {frames} pictures{named}, of which the first alone would be read"
        raise BadInput.of(field, where, why, "save each that counts as a file of its own")
    if width * height > PIXELS:
        raise BadInput.of(
            field,
            where,
            f"holds a picture of {width:,} x {height:,} pixels{named}, and one may have {PIXELS:,}",
            "make it smaller",
        )
    if mode in ("I", "F"):
        why = f"holds a picture{named} of 32 bits per pixel, whose range nothing tells"
        raise BadInput.of(field, where, why, "save it with 8 or 16")
    return width * height * max(3, bands)


def _raw(value: Mapping[str, Any], allowed: Callable[[str], bool]) -> bytes:
    """The bytes of a picture as it is stored."""
    if value.get("bytes") is not None:
        return bytes(value["bytes"])
    path = str(value.get("path"))
    if not allowed(path):
        raise ValueError(f"{path} lies outside the data")
    from datasets.utils.file_utils import xopen

    with xopen(path, "rb") as file:
        raw = file.read(FILE + 1)
    if len(raw) > FILE:
        raise ValueError(f"it has more than {FILE // 2**20} MiB")
    return bytes(raw)
