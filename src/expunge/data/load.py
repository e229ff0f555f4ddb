"""Reads examples from JSONL, JSON, CSV, Parquet, an image folder, CIFAR, the hub, or an embedded world."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core import hub, json_list
from expunge.core.card import Example
from expunge.core.documents import TEXT, lines, parse_json, read_text, regular, unique_keys
from expunge.core.errors import BadInput
from expunge.core.files import read_json
from expunge.core.variables import expand
from expunge.data import cifar, sets
from expunge.data.examples import normalise
from expunge.data.homes import is_pattern, rows_of
from expunge.data.rows import keep
from expunge.data.worlds import world

HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.\[\]%-]+){0,2}", re.ASCII)
"""owner/name, with a configuration, a split or both behind it."""
SLICE = re.compile(r"(.+)\[([0-9]{0,15}):([0-9]{0,15})\]")
FIRST = 2**16
"""Bytes in which the first character of a JSON file is looked for."""
FILES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".json": "json"}


def load(source: str | Sequence[Any], field: str, columns: Mapping[str, str] | None = None) -> Sequence[Example]:
    """All examples of a source, in its order. `field` names the request's field in errors.

    A source is a path, a hub name (`owner/name:config:split`; a folder of the same shape likewise),
    `builtin:WORLD/SPLIT`, or a list of these or of examples. `path[20:40]` takes rows 20 to 39. `data/{client}.jsonl`
    is all files of that form, whose rows get the field `client`. Raises BadInput.
    """
    columns = columns or {}
    if not isinstance(source, str):
        if not (given := keep(_parts(source, field, columns))):
            raise BadInput.of(field, "[]", "holds no example", "give at least one, or leave the field out")
        return given
    if source.startswith("builtin:"):
        return world(source, field)
    if (cut := SLICE.fullmatch(source)) and not _exists(Path(expand(source, field))):
        first, last = (int(part) if part else None for part in cut.groups()[1:])
        if not (part := load(cut[1], field, columns)[first:last]):
            raise BadInput.of(field, source, "takes no row", "give [first:last] within the file, first before last")
        return part
    path = Path(expand(source, field))
    if is_pattern(str(path)):
        return keep(rows_of(source, str(path), field, lambda place: load(place, field, columns)))
    rows = _rows_at(path, source, field)
    examples = keep(normalise(row, columns, f"{field}, row {i + 1} of {path.name}") for i, row in enumerate(rows))
    if not examples:
        raise BadInput.of(field, source, "holds no example", "give a file with at least one")
    return examples


def _rows_at(path: Path, source: str, field: str) -> Iterable[dict[str, Any]]:
    """The rows of a path, a named part of a folder, or a data set on the hub, as they are written. Raises BadInput."""
    try:
        is_file, is_dir = path.is_file(), path.is_dir()
    except OSError as error:
        raise BadInput.of(field, source, f"can be no path ({error.strerror})", "give a file or a folder") from None
    if is_file:
        return file_rows(path, field)
    if is_dir:
        return _folder_rows(path, field)
    if (named := sets.folder_of(str(path))) is not None:
        return _named_rows(*named, field)
    if HUB.fullmatch(source) and path.suffix not in {".jsonl", ".ndjson", ".txt", *FILES}:
        return _hub_rows(source, field)
    if path.exists():
        regular(path, field)
    raise BadInput.of(field, source, "does not exist", "give a file, a folder or a hub name")


def _parts(sources: Sequence[Any], field: str, columns: Mapping[str, str]) -> Iterator[Example]:
    """The examples of several sources, and those that are given themselves."""
    for i, item in enumerate(sources):
        if isinstance(item, str):
            yield from load(item, field, columns)
        else:
            yield normalise(item, columns, f"{field}[{i}]")


def hub_names(source: Any) -> list[str]:
    """The hub's data sets among the parts of a source that is not read yet."""
    if not isinstance(source, str):
        return [name for part in source if isinstance(part, str) for name in hub_names(part)]
    cut = SLICE.fullmatch(source)
    source = cut[1] if cut else source
    if source.startswith("builtin:") or not HUB.fullmatch(source) or _exists(Path(source)):
        return []
    if sets.folder_of(source) is not None or Path(source).suffix in {".jsonl", ".ndjson", ".txt", *FILES}:
        return []
    return [source.partition(":")[0]]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a path
        return False


def file_rows(path: Path, field: str) -> Iterable[dict[str, Any]]:
    """The rows of a data file of any kind, as they are written. Raises BadInput."""
    if path.suffix in {".jsonl", ".ndjson"}:
        return jsonl_rows(path, field)
    if path.suffix == ".txt":
        text = read_text(path, field, TEXT)
        return [{"text": text}] if text.strip() else []
    if path.suffix == ".bin":
        return cifar.file_rows(path, field)
    if path.suffix not in FILES:
        cifar.refuse_pickled(path, field)
        raise BadInput.of(field, str(path), "is of no kind that we read", "give .jsonl, .json, .csv, .tsv or .parquet")
    if path.stat().st_size == 0:
        return []
    sets.check_columns(path, field)
    if path.suffix == ".json":
        return _json_rows(path, field)
    return _table_rows(path, field)


def _table_rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """The rows of a CSV (TSV) or Parquet file, one after another."""
    kind, signs = FILES[path.suffix], {"sep": "\t"} if path.suffix == ".tsv" else {}
    try:
        with tempfile.TemporaryDirectory() as own:
            builder = sets.builder_of(kind, own, data_files=str(path), **signs)
            yield from sets.build_rows(builder, "train", str(path), field)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput.of(
            field, str(path), f"cannot be read ({_first_line(error)})", f"check that it is {kind.upper()}"
        ) from None


def _json_rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON file: a list of them, one per line, or one alone. Texts stay texts, dates among them."""
    if not _begins(path, "{"):
        rows = json_list.objects(path, field)
    elif _has_lines(path, field):
        rows = jsonl_rows(path, field)
    else:
        rows = _one_object(path, field)
    yield from (dict(row) for row in sets.bound_rows(rows, field))


def _begins(path: Path, sign: str) -> bool:
    """Whether this is the first character of a file but for blanks."""
    with path.open("rb") as file:
        head = file.read(FIRST).decode("utf-8-sig", "replace")
    return head.lstrip().startswith(sign)


def _has_lines(path: Path, field: str) -> bool:
    """Whether the first line of a file is an object, and others follow."""
    two = [line for _, line in itertools.islice(((i, line) for i, line in lines(path, field) if line.strip()), 2)]
    try:
        return len(two) == 2 and isinstance(json.loads(two[0]), dict)
    except (ValueError, RecursionError):
        return False


def _one_object(path: Path, field: str) -> Iterator[dict[str, Any]]:
    try:
        found = parse_json(read_text(path, field, TEXT))
    except ValueError as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error})", "check that it is JSON") from None
    yield dict(found)


def jsonl_rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """The objects of a file that has one per line. Raises BadInput."""
    return (row for _, row in numbered_rows(path, field))


def numbered_rows(path: Path, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of each line that has one. Raises BadInput."""
    for number, line in lines(path, field):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=unique_keys)
        except json.JSONDecodeError as error:
            raise BadInput.of(
                field,
                str(path),
                f"is broken JSON at line {number}: {error.msg}",
                "fix that line; each must be one JSON object",
            ) from None
        except (ValueError, RecursionError) as error:
            raise BadInput.of(
                field,
                str(path),
                f"cannot be read at line {number} ({error})",
                "fix that line; each must be one JSON object",
            ) from None
        if not isinstance(row, dict):
            raise BadInput.of(
                field, str(path), f"holds no object at line {number}", "each line must be one JSON object"
            )
        yield number, row


def _folder_rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """The rows of a folder's files, one after another; those with pictures together."""
    if cifar.layout_of(path) is not None:
        fix = " or ".join(f"{path}:{split}" for split in cifar.SPLITS)
        raise BadInput.of(field, str(path), "has several splits", f"write {fix}")
    cifar.refuse_pickled(path, field)
    kinds = _kinds_in(path, field)
    try:
        if (path / "dataset_info.json").exists() or (path / "state.json").exists():
            yield from _saved_rows(path, field)
        elif not kinds & sets.PICTURES:
            yield from sets.table(str(path), [], field)
        else:
            with tempfile.TemporaryDirectory() as own:
                builder = sets.builder_of("imagefolder", own, data_dir=str(path))
                yield from sets.build_rows(builder, "train", str(path), field)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput.of(
            field, str(path), f"cannot be read ({_first_line(error)})", "give a data file or a data set folder"
        ) from None


def _saved_rows(path: Path, field: str) -> Iterable[dict[str, Any]]:
    """The files that `save_to_disk` wrote: its state names the files, which are read where they lie."""
    import datasets

    state = read_json(path / "state.json")
    for key in ("_data_files", "_indices_data_files"):
        for file in state.get(key) or []:
            sets.check_inside(path / str(file["filename"]), path, field)
    return sets.table_rows(datasets.load_from_disk(str(path)), sets.homes_of(path), field)


def _named_rows(folder: Path, names: list[str], field: str) -> Iterator[dict[str, Any]]:
    """`FOLDER:CONFIG:SPLIT`."""
    if cifar.layout_of(folder) is not None:
        yield from cifar.split_rows(folder, names, field)
        return
    if not sets.has_configurations(folder):
        for path in sets.files_named(folder, names, field):
            yield from file_rows(path, field)
        return
    try:
        yield from sets.table(str(folder), names, field)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput.of(
            field,
            ":".join([str(folder), *names]),
            f"cannot be read ({_first_line(error)})",
            "check what the folder's README.md says of its files",
        ) from None


def _hub_rows(source: str, field: str) -> Iterator[dict[str, Any]]:
    name, *names = source.split(":")
    hub.go_offline_if_unreachable()
    try:
        yield from sets.table(name, names, field)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput.of(
            field,
            source,
            f"is not a file here, and cannot be had from the hub ({_first_line(error)})",
            "give a path that exists, or owner/name:config:split of a data set there",
        ) from None


def _kinds_in(path: Path, field: str) -> set[str]:
    """The kinds of data files below a folder. Raises BadInput where there is none, or far too much."""
    kinds: set[str] = set()
    for file in sets.walk(path, field):
        if (kind := file.suffix.lower()) in sets.PICTURES | sets.DATA:
            regular(file, field)
            sets.check_inside(file, path, field)
            kinds.add(kind)
    if not kinds:
        raise BadInput.of(
            field, str(path), "is a folder without a data file", "give a file, or a folder that holds data"
        )
    return kinds


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
