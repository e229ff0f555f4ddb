"""Data sets with configurations and splits, `PLACE:CONFIG:SPLIT`: on the hub, or in a folder of the same shape.

A folder says what it holds in its README.md, as data sets on the hub do, or by the names of its files
(`CONFIG/SPLIT.jsonl`, `CONFIG.json`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput, did_you_mean

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
SHARD = re.compile(r"-\d{5}-of-\d{5}$")


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


def described(folder: Path) -> bool:
    """Does a README.md say which files make which configuration."""
    card = folder / "README.md"
    return card.is_file() and bool(re.search(r"^configs:", card.read_text("utf-8", "replace"), re.M))


def files_named(folder: Path, names: list[str], field: str) -> list[Path]:
    """The files of `CONFIG:SPLIT` in a folder that does not describe itself. Raises BadInput."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in KINDS and path.is_file():
            *above, name = path.relative_to(folder).with_suffix("").parts
            found.setdefault(":".join([*above, SHARD.sub("", name)]), []).append(path)
    whole = names[:-1] if names[-1] == "train" else names  # what has one split has it under that name
    for wanted in (":".join(names), ":".join(whole)):
        if wanted in found:
            return found[wanted]
    raise BadInput.of(
        field, f"{folder}:{':'.join(names)}", "names no file of that folder", did_you_mean(":".join(names), found)
    )


def table(place: str, names: list[str], field: str) -> Any:
    """The rows of a configuration's split. One name alone is a configuration, or a split of the set's default one.

    Raises BadInput for a name that is not there; whatever `datasets` raises where the set cannot be had.
    """
    import datasets

    config, split = (*names, "", "")[:2]
    builder = _builder(place, config)
    if (
        builder is None
        and len(names) == 1
        and (default := _builder(place, "")) is not None
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
    return datasets.load_dataset(place, config or None, split=split)


def _builder(place: str, config: str) -> Any:
    """What `datasets` would read; None where there is no such configuration, or none is named and there are several."""
    import datasets

    try:
        return datasets.load_dataset_builder(place, config or None)
    except ValueError:
        return None


def _splits(builder: Any) -> list[str]:
    return list(builder.info.splits or builder.config.data_files or {})
