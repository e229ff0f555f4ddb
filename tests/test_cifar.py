"""CIFAR's published binary files: records as the page describes them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from expunge.core.errors import BadInput
from expunge.data.load import load


def write_records(path: Path, labels: list[tuple[int, ...]]) -> np.ndarray:
    """A file of records with these label bytes; returns the pictures [N, 3, 32, 32]."""
    pictures = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(bytes(own) + one.tobytes() for own, one in zip(labels, pictures, strict=True)))
    return pictures


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-bin"
    for i in range(1, 6):
        write_records(folder / f"data_batch_{i}.bin", [(i,), (9 - i,)])
    write_records(folder / "test_batch.bin", [(3,)])
    (folder / "batches.meta.txt").write_text("".join(f"name {i}\n" for i in range(10)) + "\n")
    return folder


def test_a_record_is_its_label_and_three_planes_of_colour(ten: Path) -> None:
    (picture,) = write_records(ten / "test_batch.bin", [(3,)])
    (row,) = load(str(ten / "test_batch.bin"), "test")
    assert row["label"] == 3 and row["class_name"] == "name 3" and row["image"].dtype == np.uint8
    assert row["image"].shape == (32, 32, 3)
    assert row["image"][5, 7].tolist() == picture[:, 5, 7].tolist()


def test_a_split_of_the_folder_is_all_its_files_in_order(ten: Path) -> None:
    assert [row["label"] for row in load(f"{ten}:train", "data")] == [1, 8, 2, 7, 3, 6, 4, 5, 5, 4]
    assert len(load(f"{ten}:test", "data")) == 1
    assert [row["label"] for row in load(f"{ten}:train[2:4]", "data")] == [2, 7]


def test_the_hundred_have_a_superclass(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    write_records(folder / "train.bin", [(19, 99), (4, 0)])
    rows = load(f"{folder}:train", "data")
    assert [(row["superclass"], row["label"]) for row in rows] == [(19, 99), (4, 0)]
    assert "class_name" not in rows[0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar-10-batches-bin", "has several splits; write .*:train or .*:test"),
        ("cifar-10-batches-bin:valid", "names no split of CIFAR-10; write .*:train"),
        ("cifar-10-batches-bin/odd.bin", "is not named as a file of CIFAR; keep the published names: data_batch_1.bin"),
    ],
)
def test_other_names_are_refused(source: str, message: str, ten: Path) -> None:
    write_records(ten / "odd.bin", [(1,)])
    with pytest.raises(BadInput, match=message):
        load(str(ten.parent / source), "data")


def test_a_cut_file_a_wrong_label_and_a_missing_file_are_refused(ten: Path) -> None:
    file = ten / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadInput, match="is not a whole number of CIFAR-10's records of 3,073 bytes"):
        load(str(file), "data")
    write_records(file, [(1,), (10,)])
    with pytest.raises(BadInput, match="holds the label 10 in record 2, and there are 10"):
        load(str(file), "data")
    file.unlink()
    with pytest.raises(BadInput, match=r"lacks data_batch_2.bin; unpack cifar-10-binary.tar.gz again"):
        load(f"{ten}:train", "data")


@pytest.mark.parametrize("name", ["data_batch_1", "train"])
def test_the_pickled_version_is_never_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00.")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(BadInput, match=r"is pickled.*take the binary version .cifar-10-binary.tar.gz"):
            load(str(source), "data")


def test_a_folder_of_pictures_has_a_class_per_subfolder(tmp_path: Path) -> None:
    for name, kind in (("apple", "png"), ("pear", "jpg")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (6, 4), "red").save(tmp_path / name / f"0.{kind}")
    rows = load(str(tmp_path), "data")
    assert [(row["label"], row["class_name"], row["image"].shape) for row in rows] == [
        (0, "apple", (4, 6, 3)),
        (1, "pear", (4, 6, 3)),
    ]


def test_a_saved_data_set_of_pictures_opens(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    pictures = [Image.new("L", (5, 5), 10 * i) for i in range(3)]
    made = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 1]}, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    made.to_parquet(str(tmp_path / "parquet" / "train-00000-of-00001.parquet"))
    for folder in ("saved", "parquet"):
        rows = load(str(tmp_path / folder), "data")
        assert [(row["class_name"], int(row["image"][0, 0])) for row in rows] == [("a", 0), ("b", 10), ("b", 20)]
