"""Folders of pictures: each class has the number that its name or the other splits give it, and no picture is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from expunge.core.errors import BadInput
from expunge.data.load import load
from expunge.data.splits import make_splits


def picture(path: Path, seed: int, **saving: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 6)).astype(np.uint8)).save(path, **saving)
    return path


def said(call: Any, *given: Any) -> str:
    with pytest.raises(BadInput) as refusal:
        call(*given)
    return str(refusal.value)


@pytest.mark.parametrize("names", [range(12), (3, 7)])
def test_a_folder_named_by_a_number_is_that_class(names: Any, tmp_path: Path) -> None:
    """In the order of the names, 10 comes before 2, and two of ten classes would be 0 and 1."""
    for name in names:
        picture(tmp_path / str(name) / "a.png", name)
    rows = load(str(tmp_path), "forget")
    assert sorted((row["label"], row["class_name"]) for row in rows) == [(name, str(name)) for name in names]


def test_folders_that_are_not_all_numbers_keep_the_order_of_their_names(tmp_path: Path) -> None:
    for i, name in enumerate(("7", "cat", "dog")):
        picture(tmp_path / name / "a.png", i)
    assert sorted((row["label"], row["class_name"]) for row in load(str(tmp_path), "forget")) == [
        (0, "7"),
        (1, "cat"),
        (2, "dog"),
    ]


@pytest.mark.parametrize("others", [("dog", "fox"), ("owl", "yak")])
def test_splits_that_number_their_classes_each_for_itself_are_refused(others: Any, tmp_path: Path) -> None:
    for split, names in {"forget": ("cat", "dog"), "retain": others}.items():
        for i, name in enumerate(names):
            picture(tmp_path / split / name / f"{split}.png", i + 10 * (split == "retain"))
    sources = {split: str(tmp_path / split) for split in ("forget", "retain")}
    assert "here and" in said(make_splits, sources)


def test_noise_in_the_labels_of_one_split_is_no_numbering_of_its_own() -> None:
    rows = [{"image": [[i, 9 * j]], "label": i, "class_name": f"n{i}"} for i in range(2) for j in range(2)]
    noisy = [{"image": [[5, 1]], "label": 1, "class_name": "n0"}, {"image": [[6, 1]], "label": 0, "class_name": "n0"}]
    assert len(make_splits({"forget": noisy, "retain": rows})["forget"]) == 2


def test_a_picture_that_the_metadata_do_not_name_is_not_left_out_unsaid(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 0)
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,3\n")
    assert [row["label"] for row in load(str(tmp_path), "forget")] == [3]
    picture(tmp_path / "b.png", 1)
    assert "has 2 pictures, and its metadata name 1" in said(load, str(tmp_path), "forget")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp"])
def test_a_file_of_several_pictures_is_not_its_first(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), 60 * i, np.uint8)) for i in range(3)]
    (tmp_path / "cat").mkdir()
    frames[0].save(tmp_path / "cat" / name, save_all=True, append_images=frames[1:])
    assert f"'row 1' holds 3 pictures ({name})" in said(load, str(tmp_path), "forget")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_that_is_cut_off_is_named(name: str, tmp_path: Path) -> None:
    path = picture(tmp_path / "cat" / name, 0)
    path.write_bytes(path.read_bytes()[:-40])
    assert f"'row 1' holds a picture ({name}) that cannot be read" in said(load, str(tmp_path), "forget")


def test_both_cifar_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name, label in {"test_batch.bin": b"\1", "test.bin": b"\1\2"}.items():
        (tmp_path / name).write_bytes(label + bytes(3072))
    assert "holds CIFAR-10 and CIFAR-100" in said(load, f"{tmp_path}:test", "forget")
