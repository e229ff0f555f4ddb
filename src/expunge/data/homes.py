"""Sources with a name in their place, `data/{client}.jsonl`: whose a row is stands in the name of its file or folder.

Each file or folder that the pattern names is read as it would be alone, and its rows get the field of that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.data.class_names import agree
from expunge.data.clients import in_order
from expunge.data.examples import INPUTS
from expunge.data.sets import KINDS, PICTURES

PLACE = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}", re.ASCII)
"""A name in braces; `${NAME}` is a variable."""
DATA = {*KINDS, *PICTURES}
"""Kinds of file that are hardly there by chance."""
Load = Callable[[str], Sequence[Example]]
"""Reads one of the places."""


def is_pattern(source: str) -> bool:
    """Whether a source has a name in its place, and is no file or folder that is written so."""
    try:
        return bool(PLACE.search(source)) and not Path(source).exists()
    except OSError:  # too long for a path
        return False


def rows_of(source: str, path: str, field: str, load: Load) -> Iterator[Example]:
    """The rows of all places of a pattern, by the order of their names, each with the field that the braces name.

    source: as the user wrote it; path: with its variables expanded. Raises BadInput where it is not clear whose a row
    is.
    """
    name, places = _places(source, path, field)
    read = {home: load(str(place)) for home, place in places.items()}
    _check_labels({str(places[home]): rows for home, rows in read.items()}, field)
    for home, rows in read.items():
        for i, row in enumerate(rows):
            if row.get(name) is not None and str(row[name]) != home:
                where = f"row {i + 1} of {places[home].name}"
                why = f"has the {name} {row[name]!r}, and lies with {home!r}"
                raise BadInput.of(field, where, why, f"take {name} out of the rows, or give the files by their names")
            yield {**row, name: home}


def _check_labels(read: Mapping[str, Sequence[Example]], field: str) -> None:
    """Check that a label means the same everywhere. Raises BadInput."""
    labelled = {place: all(row.get("label") is not None for row in rows) for place, rows in read.items()}
    if any(labelled.values()) and not all(labelled.values()):
        bare = next(place for place, known in labelled.items() if not known)
        why = "has rows without a label, and others have labels in all (a single folder of pictures gives none)"
        raise BadInput.of(field, bare, why, "label them, as in a metadata.csv")
    agree(read)


def _places(source: str, path: str, field: str) -> tuple[str, dict[str, Path]]:
    """(the field's name, what stands in its place -> file or folder). Raises BadInput."""
    names = PLACE.findall(path)
    if len(names) > 1 or names[0] in INPUTS:
        why = "names several fields" if len(names) > 1 else f"would set {names[0]}, which is part of an example"
        raise BadInput.of(field, source, why, "name one field that tells rows apart, as data/{client}.jsonl")
    parts = Path(path).parts
    at = next(i for i, part in enumerate(parts) if PLACE.search(part))
    above, rest = Path(*parts[:at]), Path(*parts[at + 1 :])
    if not above.is_dir():
        raise BadInput.of(field, source, f"lies in {above}, which is no folder", "give a folder that is there")
    before, _, after = PLACE.split(parts[at])
    found: dict[str, Path] = {}
    for entry in above.iterdir():
        inner = _between(entry, before, after)
        if inner and (entry / rest).exists():
            found[inner] = entry / rest
        elif entry.is_file() and entry.suffix.lower() in DATA and entry.name.startswith(before):
            why = f"would leave out {entry.name}, which lies beside and is no {parts[at]}"
            raise BadInput.of(field, source, why, "write all of them in one way, or take it out of the folder")
    if not found:
        fix = f"give files or folders of that form in {above}"
        raise BadInput.of(field, source, "names no file and no folder", fix)
    return names[0], {home: found[home] for home in sorted(found, key=in_order)}


def _between(entry: Path, before: str, after: str) -> str:
    """The part in the braces' place; "" where the entry is hidden or of another form. Without an ending: a folder's."""
    middle = entry.name[len(before) : len(entry.name) - len(after)]
    alike = before + middle + after == entry.name and not entry.name.startswith(".")
    return middle if alike and (after or entry.is_dir()) else ""
