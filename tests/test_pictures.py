"""Pictures are read as their colours, however they are stored."""

from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from expunge.core.errors import BadInput
from expunge.data.load import load
from expunge.data.pictures import _array
from expunge.models.open import open_on_cpu

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


def test_classes_that_data_and_model_number_differently_are_refused(tmp_path: Path) -> None:
    """The folder has two of the model's three classes: its numbers start anew, and dog would be taken for cat."""
    names = ("cat", "dog", "fox")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "vit")
    for folder, found in (("some", names[1:]), ("all", names)):
        for name in found:
            (tmp_path / folder / name).mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), 40 * names.index(name), np.uint8)).save(
                tmp_path / folder / name / "0.png"
            )
    rows = load(str(tmp_path / "some"), "forget")
    assert [(row["label"], row["class_name"]) for row in rows] == [(0, "dog"), (1, "fox")]
    model = open_on_cpu(str(tmp_path / "vit"))
    with pytest.raises(BadInput, match="'row 1' is of the class 'dog', number 0 in the data and number 1 in the model"):
        model.accepts("forget", rows)
    model.accepts("forget", load(str(tmp_path / "all"), "forget"))
