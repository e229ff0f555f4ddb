"""CIFAR-10 and CIFAR-100 in their published binary version (Krizhevsky 2009): `FOLDER:train`, `FOLDER:test`, or a
file.

A record is one byte per label (CIFAR-100: the superclass, then the class), then 1,024 bytes each of red, green and
blue, row by row. The version "for Python" is pickled and is never opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.documents import TEXT, read_text
from expunge.core.errors import BadInput

SIDE = 32
PICTURE = 3 * SIDE * SIDE
SPLITS = ("train", "test")
PICKLED = ("data_batch_1", "test_batch", "batches.meta", "meta", "train", "test")
"""The files of the version for Python have no suffix."""


@dataclass(frozen=True)
class Layout:
    """A published set: its files by split, and for each label byte of a record the field, the number of values and the
    file of their names."""

    files: dict[str, tuple[str, ...]]
    labels: tuple[tuple[str, int, str], ...]
    name: str
    download: str

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return len(self.labels) + PICTURE


TEN = Layout(
    {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    (("label", 10, "batches.meta.txt"),),
    "CIFAR-10",
    "cifar-10-binary.tar.gz",
)
HUNDRED = Layout(
    {"train": ("train.bin",), "test": ("test.bin",)},
    (("superclass", 20, "coarse_label_names.txt"), ("label", 100, "fine_label_names.txt")),
    "CIFAR-100",
    "cifar-100-binary.tar.gz",
)


def layout_of(folder: Path) -> Layout | None:
    """The set that a folder holds, by the names of its files; the first, where it holds both."""
    return next(iter(_layouts(folder)), None)


def _layouts(folder: Path) -> list[Layout]:
    return [
        layout
        for layout in (TEN, HUNDRED)
        if any((folder / name).is_file() for names in layout.files.values() for name in names)
    ]


def split_rows(folder: Path, names: list[str], field: str) -> Iterator[dict[str, Any]]:
    """The rows of a split of a folder that holds one of the sets; names: [split]. Raises BadInput."""
    layout, *others = _layouts(folder)
    split = names[-1] if len(names) == 1 else ""
    shown = ":".join([str(folder), *names])
    if others:
        raise BadInput.of(field, shown, "holds CIFAR-10 and CIFAR-100", "give each a folder of its own")
    if split not in layout.files:
        raise BadInput.of(field, shown, f"names no split of {layout.name}", f"write {folder}:train or {folder}:test")
    paths = [folder / name for name in layout.files[split]]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise BadInput.of(field, shown, f"lacks {', '.join(absent)}", f"unpack {layout.download} again")
    return (row for path in paths for row in file_rows(path, field))


def file_rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """The rows of a `.bin` file under its published name: image uint8 [32, 32, 3], label, and names where their file
    lies beside it. CIFAR-100's have `superclass` too. Raises BadInput."""
    known = {name: layout for layout in (TEN, HUNDRED) for names in layout.files.values() for name in names}
    layout = known.get(path.name)
    if layout is None:
        raise BadInput.of(
            field, str(path), "is not named as a file of CIFAR", "keep the published names: " + ", ".join(known)
        )
    records, rest = divmod(path.stat().st_size, layout.record)
    if rest or not records:
        reason = f"is not a whole number of {layout.name}'s records of {layout.record:,} bytes"
        raise BadInput.of(field, str(path), reason, f"unpack {layout.download} again")
    bytes_NR = np.fromfile(path, np.uint8).reshape(records, layout.record)
    for place, (_, count, _) in enumerate(layout.labels):
        if (wrong_N := bytes_NR[:, place] >= count).any():
            row = int(wrong_N.argmax())
            reason = f"holds the label {bytes_NR[row, place]} in record {row + 1}, and there are {count}"
            raise BadInput.of(field, str(path), reason, f"unpack {layout.download} again")
    return _rows(bytes_NR, layout, [_names(path.with_name(names), count) for _, count, names in layout.labels])


def _rows(bytes_NR: np.ndarray, layout: Layout, names: list[list[str]]) -> Iterator[dict[str, Any]]:
    first = len(layout.labels)
    images_N = bytes_NR[:, first:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    for record, image in zip(bytes_NR, images_N, strict=True):
        row: dict[str, Any] = {"image": np.ascontiguousarray(image)}
        for place, (key, _, _) in enumerate(layout.labels):
            number = int(record[place])
            row[key] = number
            if names[place]:
                row["class_name" if key == "label" else f"{key}_name"] = names[place][number]
        yield row


def _names(path: Path, count: int) -> list[str]:
    """The names in a file, a line each; none where it is not there or has too few."""
    if not path.is_file():
        return []
    names = [line.strip() for line in read_text(path, "data", TEXT).splitlines() if line.strip()]
    return names[:count] if len(names) >= count else []


def refuse_pickled(path: Path, field: str) -> None:
    """Raise BadInput where the file, or a file of the folder, is of the pickled version."""
    files = [path] if path.is_file() else [path / name for name in PICKLED]
    for file in files:
        if file.suffix in {".pkl", ".pickle"} or (file.name in PICKLED and file.is_file() and _is_pickle(file)):
            raise BadInput.of(
                field,
                str(path),
                "is pickled, and opening a pickle would run what it holds",
                f"take the binary version ({TEN.download}, {HUNDRED.download}), or save the pictures as files",
            )


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"
