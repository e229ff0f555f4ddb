"""Pictures are read as their colours, however they are stored."""

import numpy as np
import pytest
from PIL import Image

from expunge.data.pictures import _array

GREY = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize("mode", ["P", "L", "I;16"])
def test_a_grey_picture_is_its_grey_values(mode):
    if mode == "I;16":
        picture = Image.fromarray(GREY.astype(np.uint16) << 8)
    else:
        picture = Image.fromarray(GREY).convert(mode)
    np.testing.assert_array_equal(_array(picture), GREY)


def test_a_palette_in_colour_is_its_colours():
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    assert _array(picture).tolist() == [[[255, 0, 0], [0, 0, 255]]]
