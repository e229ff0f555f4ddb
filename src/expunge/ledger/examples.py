"""examples.parquet beside evidence.json: the values and texts of single examples, one row per example that was read.

Columns: `split`; `nll_<role>` in nats per token; of the examples that the report may show `shown`, and `question`,
`answer`, `picture` (a data URI), `prompt`, `label`, each model's own `answer_<role>` or `label_<role>`, and
`pixels_<role>`, a picture of the pixels that its answer rests on; in a redacted run `redacted` in their place. A column
without a value is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.files import new_file, write_json

EVIDENCE, EXAMPLES = "evidence.json", "examples.parquet"
BESIDE = ("distributions", "examples")
"""Fields of the evidence that lie in the file beside it."""
ROLES = ("before", "gold", "after")
GIVEN = {"question": str, "answer": str, "picture": str, "prompt": str, "label": int, "redacted": bool}
COLUMNS: dict[str, type] = {
    "split": str,
    "shown": bool,
    **GIVEN,
    **{f"nll_{role}": float for role in ROLES},
    **{f"answer_{role}": str for role in ROLES},
    **{f"label_{role}": int for role in ROLES},
    **{f"pixels_{role}": str for role in ROLES},
}
MOST_ROWS = 100_000
MOST_BYTES = 2**30
"""Of the columns unpacked: a file from elsewhere may claim more than memory holds."""


def write_evidence(folder: Path, evidence: Mapping[str, Any]) -> None:
    """evidence.json; before it examples.parquet, where the evidence has values of single examples."""
    if any(name in evidence for name in BESIDE):
        write_examples(folder / EXAMPLES, evidence)
    write_json(folder / EVIDENCE, {name: value for name, value in evidence.items() if name not in BESIDE})


def write_examples(path: Path, evidence: Mapping[str, Any]) -> None:
    """The file of the evidence's distributions and examples."""
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    rows = _rows(evidence)
    filled = [name for name in COLUMNS if name == "split" or any(row.get(name) is not None for row in rows)]
    columns = {name: pyarrow.array([row.get(name) for row in rows], kinds[COLUMNS[name]]) for name in filled}
    with new_file(path) as written:
        # Texts as they are: a search for what was erased sees them.
        pyarrow.parquet.write_table(pyarrow.table(columns), written, compression="none", use_dictionary=False)


def read_examples(path: Path) -> dict[str, Any]:
    """The evidence's distributions and examples. Raises OSError or ValueError for a file that is none of ours."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        about = file.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if about.num_rows > MOST_ROWS or size > MOST_BYTES or not set(file.schema_arrow.names) <= set(COLUMNS):
            raise ValueError("it has other columns than ours, or is too large")
        rows = file.read().to_pylist()
    for row in rows:
        for name, value in row.items():
            if value is not None and type(value) is not COLUMNS[name]:
                raise ValueError(f"its {name} is not {COLUMNS[name].__name__}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"its {name} is not finite")
    return _fields(rows)


def _rows(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per example of each split, in order."""
    distributions, shown = (evidence.get(name) or {} for name in BESIDE)
    rows = []
    for split in dict.fromkeys([*distributions, *shown]):
        values, examples = distributions.get(split) or {}, shown.get(split) or []
        for i in range(max([len(examples), *map(len, values.values())])):
            row = {"split": split, **{f"nll_{role}": found[i] for role, found in values.items()}}
            rows.append({**row, **(_cells(examples[i]) if i < len(examples) else {})})
    return rows


def _cells(example: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an example that the report may show."""
    given = {name: example[name] for name in GIVEN if name in example}
    own = {role: example[role] for role in ROLES if role in example}
    return {
        "shown": True,
        **given,
        **{f"pixels_{role}": uri for role, uri in (example.get("pixels") or {}).items() if role in ROLES},
        **{f"{'label' if isinstance(value, int) else 'answer'}_{role}": value for role, value in own.items()},
    }


def _fields(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The evidence's fields that `_rows` took apart."""
    distributions: dict[str, dict[str, list[Any]]] = {}
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        nll = {role: row.get(f"nll_{role}") for role in ROLES}
        for role, value in nll.items():
            distributions.setdefault(row["split"], {}).setdefault(role, []).append(value)
        if row.get("shown"):
            given = {name: row[name] for name in GIVEN if row.get(name) is not None}
            own = {
                role: row[name]
                for role in ROLES
                for name in (f"answer_{role}", f"label_{role}")
                if row.get(name) is not None
            }
            pixels = {role: uri for role in ROLES if (uri := row.get(f"pixels_{role}")) is not None}
            known = {role: value for role, value in nll.items() if value is not None}
            examples.setdefault(row["split"], []).append(
                {"nll": known, **given, **own, **({"pixels": pixels} if pixels else {})}
            )
    measured = {
        split: {role: found for role, found in values.items() if any(value is not None for value in found)}
        for split, values in distributions.items()
    }
    return {"distributions": {split: values for split, values in measured.items() if values}, "examples": examples}
