"""Pictures of two ranges of brightness: one of them would be read 255 times too bright, or too dark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import expunge
from expunge.core.errors import BadInput
from expunge.models.classifier import check_pixels, check_units

BYTES = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
DARK = np.eye(4, dtype=np.float64)
"""The darkest steps of 0-255, or black and white in 0-1."""


def rows(*images: Any) -> list[dict[str, Any]]:
    return [{"image": image, "label": 0} for image in images]


@pytest.mark.parametrize("wide", [BYTES.tolist(), BYTES.astype(float), BYTES.astype(np.uint16)])
def test_bytes_in_one_split_and_numbers_in_another(wide: Any) -> None:
    with pytest.raises(BadInput, match="retain: 'row 1' holds an image with numbers up to 255, and forget, row 1"):
        check_units({"forget": rows(BYTES), "retain": rows(wide)})
    check_units({"forget": rows(BYTES), "retain": rows(BYTES / 255), "holdout": [{"features": [3.0], "label": 0}]})
    check_units({"forget": rows(wide), "retain": rows(wide)})


def test_a_dark_picture_among_bright_ones_in_numbers() -> None:
    with pytest.raises(BadInput, match=r"forget: 'row 2' .* row 1 has another range"):
        check_pixels("forget", rows(BYTES.astype(float), DARK))
    check_pixels("forget", rows(BYTES / 255, DARK, np.zeros((4, 4))))
    check_pixels("forget", rows(BYTES, DARK))


def test_an_empty_list_is_no_split() -> None:
    """A heading whose lines were commented out, and the run would go without its retain set."""
    values = {"model": "builtin:authors", "forget": "builtin:authors/forget", "method": "npo", "out": "out"}
    with pytest.raises(BadInput, match="retain: '\\[\\]' holds no example"):
        expunge.plan(expunge.Request.parse({**values, "retain": []}))
