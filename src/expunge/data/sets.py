"""Data sets with configurations and splits, `PLACE:CONFIG:SPLIT`: on the hub, or in a folder of the same shape.

A folder says what it holds in its README.md, as data sets on the hub do, or by the names of its files
(`CONFIG/SPLIT.jsonl`, `CONFIG.json`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub

from expunge.core import cache
from expunge.core.documents import CONFIG, TEXT, parse_yaml, read_text
from expunge.core.errors import BadInput, did_you_mean
from expunge.data import class_names
from expunge.data.pictures import pixels
from expunge.data.rows import keep
from expunge.data.tables import keep_texts, without_empty

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
SHARD = re.compile(r"-\d{5}-of-\d{5}$")
PICTURES = class_names.PICTURES
DATA = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".zip", ".gz", ".zst"}
MANY, SPARSE, SECONDS = 200_000, 5_000, 10
"""Files that a data folder may have, files that it may have where not one in ten is data, seconds to list them."""
HIDDEN = 50_000
"""Entries of hidden folders, which `datasets` lists again and again although it takes nothing from them."""
MADE_UP = (Path("/proc"), Path("/sys"), Path("/dev/fd"), Path("/dev/pts"))
READERS = {"arrow", "csv", "imagefolder", "json", "parquet", "text"}
"""Of those that `datasets` has: others read pickles, databases, or what we have no use for."""
COLUMNS = 5_000
"""That a table may have: each costs as much as a row."""
FIRST = 8 * 2**20
"""Bytes in which the first row of a JSON file is looked for."""
LARGEST = 4 * 2**30
"""Characters of all texts of a table."""
FRONT = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---(?:[\r\n]|$)", re.S)
CARDS = ("README.md", ".huggingface.yaml")


def folder_of(source: str) -> tuple[Path, list[str]] | None:
    """(folder, [configuration, split]) of `FOLDER:CONFIG:SPLIT`; None where no such folder is there."""
    for count in (1, 2):
        place, *names = source.rsplit(":", count)
        try:
            if len(names) == count and all(names) and Path(place).is_dir():
                return Path(place), names
        except OSError:  # too long for a path
            return None
    return None


def has_configurations(folder: Path) -> bool:
    """Whether a README.md says which files make which configuration."""
    card = folder / "README.md"
    if not card.is_file():
        return False
    with card.open("rb") as file:
        return bool(re.search(r"^configs:", file.read(TEXT).decode("utf-8", "replace"), re.M))


def files_named(folder: Path, names: list[str], field: str) -> list[Path]:
    """The files of `CONFIG:SPLIT` in a folder that does not describe itself. Raises BadInput."""
    found: dict[str, list[Path]] = {}
    for path in sorted(walk(folder, field)):
        if path.suffix in KINDS and path.is_file():
            check_inside(path, folder, field)
            *above, name = path.relative_to(folder).with_suffix("").parts
            found.setdefault(":".join([*above, SHARD.sub("", name)]), []).append(path)
    whole = names[:-1] if names[-1] == "train" else names  # what has one split has it under that name
    for wanted in (":".join(names), ":".join(whole)):
        if wanted in found:
            return found[wanted]
    raise BadInput.of(
        field, f"{folder}:{':'.join(names)}", "names no file of that folder", did_you_mean(":".join(names), found)
    )


def table(place: str, names: list[str], field: str) -> Iterator[dict[str, Any]]:
    """The rows of a configuration's split. One name alone is a configuration, or a split of the set's default one.

    Of a folder no copy is made; what is made of a set on the hub is deleted again, apart from its files. Raises
    BadInput for a name that is not there; whatever `datasets` raises where the set cannot be had.
    """
    if Path(place).is_dir():
        check_card(Path(place), field)
        with tempfile.TemporaryDirectory() as empty:
            yield from _table(place, names, field, empty)
    elif huggingface_hub.constants.HF_HUB_OFFLINE:
        folder = huggingface_hub.snapshot_download(place, repo_type="dataset", local_files_only=True)
        yield from table(folder, names, field)
    else:
        with cache.scratch() as own:
            yield from _table(place, names, field, str(own))


def _table(place: str, names: list[str], field: str, own: str) -> Iterable[dict[str, Any]]:
    """The same; own: a folder for what `datasets` writes."""
    import datasets

    config, split = (*names, "", "")[:2]
    builder = _builder(place, config, own)
    if (
        builder is None
        and len(names) == 1
        and (default := _builder(place, "", own)) is not None
        and config in _splits(default)
    ):
        config, split, builder = "", config, default
    shown = ":".join([place, *names])
    if builder is None:
        known = datasets.get_dataset_config_names(place)
        if not names:
            raise BadInput.of(field, shown, "has several configurations", "add :CONFIG, one of " + ", ".join(known))
        raise BadInput.of(field, shown, "names no configuration of that data set", did_you_mean(config, known))
    splits = _splits(builder)
    if not split and len(splits) > 1 and "train" not in splits:
        raise BadInput.of(field, shown, "has several splits", "add :SPLIT, one of " + ", ".join(splits))
    split = split or (splits[0] if len(splits) == 1 else "train")
    if splits and split.partition("[")[0] not in splits:
        raise BadInput.of(
            field, shown, "names no split of that data set", did_you_mean(split.partition("[")[0], splits)
        )
    return build_rows(builder, split, place, field)


def build_rows(builder: Any, split: str, place: str, field: str) -> Iterable[dict[str, Any]]:
    """The rows of a split, one after another; place: the folder, the file or the hub name beyond which nothing is read.
    Raises BadInput."""
    import datasets

    if builder.name not in READERS:
        raise BadInput.of(field, place, f"holds {builder.name} data, which we do not read", "write them as JSONL")
    here = os.path.exists(place)
    files = [str(name) for group in (builder.config.data_files or {}).values() for name in group]
    homes = homes_of(Path(place)) if here else [Path(builder.cache_dir).parents[2], _downloads(place)]
    for name in files:
        if not (within(name, homes) if here else name.startswith(f"hf://datasets/{place}@")):
            raise _outside(field, place, name)
        if here:
            check_columns(Path(name), field)
    if builder.name == "csv":
        keep_texts(builder, files, field)
    if not here:
        builder.download_and_prepare()
        return _of_kind(builder, table_rows(builder.as_dataset(split=split), homes, field), split, place, field)
    if builder.name == "parquet":
        builder.config.batch_size = 1000  # rows that are unpacked at once, however many a file says
    base, cut, _ = split.partition("[")
    rows = _of_kind(builder, table_rows(builder.as_streaming_dataset(split=base), homes, field), base, place, field)
    if cut:
        rows = keep(rows)
        (part,) = datasets.ReadInstruction.from_spec(split).to_absolute({base: len(rows)})
        return rows[part.from_ : part.to]
    return rows


def _of_kind(builder: Any, rows: Iterable[dict[str, Any]], split: str, place: str, field: str) -> Any:
    """The rows as their kind of files is meant: a CSV's empty cells as None, folders of pictures as classes."""
    if builder.name == "csv":
        return without_empty(rows)
    if builder.name != "imagefolder":
        return rows
    files = [str(name) for name in (builder.config.data_files or {}).get(split.partition("[")[0], [])]
    return class_names.of_folders(list(rows), files, place, field)


def table_rows(found: Any, homes: list[Path], field: str) -> Iterable[dict[str, Any]]:
    """The rows of a table that `datasets` opened; with pictures all at once, as arrays. Raises BadInput for what is too
    large.

    Nothing is decoded by `datasets`, which would follow paths that stand in the rows.
    """
    import datasets

    features = dict(found.features or {})
    if isinstance(found, datasets.Dataset):
        found = found.with_format(None).to_iterable_dataset()
    if features:
        found = found.decode(False, num_threads=0)
    rows = _name_classes((dict(row) for row in bound_rows(found, field)), features)
    columns = {name: kind for name, kind in features.items() if isinstance(kind, datasets.Image)}
    if not columns:
        return rows
    return pixels(list(rows), columns, lambda path: within(path, homes), field)


def _name_classes(rows: Iterable[dict[str, Any]], features: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows, with `class_name` where their label is a number with a name: a model may number the names otherwise."""
    import datasets

    kinds = {name: kind for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    column, kind = next(iter(kinds.items())) if len(kinds) == 1 and "class_name" not in features else ("", None)
    for row in rows:
        if kind is not None and isinstance(row.get(column), int) and 0 <= row[column] < kind.num_classes:
            row["class_name"] = kind.int2str(row[column])
        yield row


def bound_rows(rows: Iterable[Mapping[str, Any]], field: str) -> Iterator[Mapping[str, Any]]:
    """The rows one after another. Raises BadInput at the one that has too many columns, or is too much."""
    size = 0
    for number, row in enumerate(rows, 1):
        if len(row) > COLUMNS:
            raise _wide(field, f"row {number}", len(row))
        size += sum(len(cell) for cell in row.values() if isinstance(cell, str | bytes))
        if size > LARGEST:
            raise BadInput.of(
                field,
                f"row {number}",
                f"brings the texts to more than {LARGEST:,} characters",
                "cut the data into parts",
            )
        yield row


def check_columns(path: Path, field: str) -> None:
    """Raises BadInput where a file's head tells of too many columns: reading them would take minutes and gigabytes."""
    count = 0
    if path.suffix.lower() in {".csv", ".tsv"}:
        with path.open("rb") as file:
            head = file.readline(TEXT)
        count = 1 + max(head.count(sign) for sign in (b",", b"\t", b";"))
    elif path.suffix.lower() in {".json", ".jsonl", ".ndjson"}:
        with path.open("rb") as file:
            text = file.read(FIRST).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, RecursionError):  # the first row is longer, or the reader says what it is
            count = len(json.JSONDecoder().raw_decode(text, text.index("{"))[0])
    elif path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        with contextlib.suppress(Exception):  # the reader says what is wrong with it
            count = len(pyarrow.parquet.read_schema(path))
    if count > COLUMNS:
        raise _wide(field, str(path), count)


def _wide(field: str, value: str, count: int) -> BadInput:
    return BadInput.of(
        field, value, f"has {count:,} columns, and a table may have {COLUMNS:,}", "leave out those that are not needed"
    )


def builder_of(kind: str, own: str, **arguments: Any) -> Any:
    """The builder of `datasets` that would read the files. own: a folder for what it writes."""
    import datasets

    return datasets.load_dataset_builder(kind, cache_dir=own, **arguments)


def _builder(place: str, config: str, own: str) -> Any:
    """The builder that `datasets` would take; None where there is no such configuration, or none is named
    and there are several."""
    try:
        return builder_of(place, own, name=config or None)
    except ValueError:
        return None


def _splits(builder: Any) -> list[str]:
    return [str(name) for name in builder.info.splits or builder.config.data_files or {}]


# -- what a folder may lead to ----------------------------------------------------------------------


def check_card(folder: Path, field: str) -> None:
    """Raises BadInput where a folder's description of itself names files elsewhere, or cannot be read."""
    for name in CARDS:
        card = folder / name
        if not card.is_file():
            continue
        text = read_text(card, field, TEXT)
        front = FRONT.match(text) if name.endswith(".md") else None
        told = (front[1] if front else "") if name.endswith(".md") else text
        if len(told) > CONFIG:
            raise BadInput.of(field, str(card), f"has a head of more than {CONFIG // 2**20} MiB", "cut it")
        try:
            found = parse_yaml(told)
        except ValueError as error:
            raise BadInput.of(field, str(card), str(error), "correct its head, between the lines ---") from None
        for path in _paths(found.get("configs") if isinstance(found, dict) else None, False):
            if re.match(r"[/\\~]|\w:", path) or "::" in path or "://" in path or ".." in re.split(r"[/\\]", path):
                raise _outside(field, str(card), path)


def _paths(value: Any, named: bool) -> Iterator[str]:
    """The texts below `data_files` and `data_dir`."""
    if isinstance(value, str):
        if named:
            yield value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _paths(below, named or key in ("data_files", "data_dir"))
    elif isinstance(value, list):
        for below in value:
            yield from _paths(below, named)


def homes_of(place: Path) -> list[Path]:
    """Where the files of a folder, or those beside a file, may lie: a snapshot of the hub's is made of links to
    blobs."""
    home = place.resolve() if place.is_dir() else place.absolute().parent.resolve()
    if home.parent.name == "snapshots":
        return [home, home.parents[1] / "blobs"]
    return [home] if place.is_dir() else [home, place.resolve()]


def _downloads(name: str) -> Path:
    from huggingface_hub.file_download import repo_folder_name  # slow, and `expunge list` imports this module

    return Path(huggingface_hub.constants.HF_HUB_CACHE).resolve() / repo_folder_name(repo_id=name, repo_type="dataset")


def within(name: str, homes: list[Path]) -> bool:
    """Whether a file, or the archive that it lies in, lies below one of these places."""
    name = name.rpartition("::")[2]
    if "://" in name:
        return False
    path = Path(name).resolve()
    return any(path == home or home in path.parents for home in homes)


def walk(folder: Path, field: str) -> Iterator[Path]:
    """All files below a folder, except hidden folders.

    Raises BadInput where it is not a folder of data: listing a disk takes minutes, and a virtual one never ends.
    """
    began = time.monotonic()
    seen = data = hidden = 0
    for place, folders, files in os.walk(folder):
        if any(special in (found := Path(place).resolve(), *found.parents) for special in MADE_UP):
            raise BadInput.of(
                field, str(folder), f"holds what the system makes up ({place})", "give the folder of the data"
            )
        for name in folders:
            if name.startswith("."):
                hidden += _entries(Path(place, name), HIDDEN - hidden)
        if hidden >= HIDDEN:
            raise BadInput.of(
                field, str(folder), f"has hidden folders with {HIDDEN:,} entries", "give the folder of the data alone"
            )
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen += len(folders) + len(files)
        data += sum(os.path.splitext(name)[1].lower() in PICTURES | DATA for name in files)
        sparse = seen > SPARSE and 10 * data < seen
        if sparse or seen > MANY or time.monotonic() - began > SECONDS:
            why = (
                f"holds more than {SPARSE if sparse else MANY:,} files"
                if sparse or seen > MANY
                else "takes too long to list"
            )
            raise BadInput.of(
                field,
                str(folder),
                why + (", and hardly any data" if sparse else ""),
                "give the folder of the data alone",
            )
        yield from (Path(place, name) for name in files)


def _entries(folder: Path, most: int) -> int:
    """How many entries lie below a folder, as far as `most`."""
    count = 0
    for _, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        if count >= most:
            break
    return count


def check_inside(path: Path, place: Path, field: str) -> None:
    """Raises BadInput for a link that leads out of the folder `place`."""
    if not within(str(path), homes_of(place)):
        raise _outside(field, str(place), str(path))


def _outside(field: str, place: str, name: str) -> BadInput:
    return BadInput.of(
        field, place, f"names {name!r}, which lies outside it", "name that file in the request, or copy it there"
    )
