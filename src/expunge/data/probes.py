"""The user's own probes: questions that get at a forget example over another way, and where each belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.variables import expand
from expunge.data.examples import normalise, question_of
from expunge.data.load import numbered_rows

KINDS = {
    "rephrased": "paraphrased_question",
    "translated": "translated_question",
    "multi_hop": "multi_hop_question",
    "alias": "multi_hop_question",
    "cloze": "cloze_question",
}
"""Kind -> the field of a forget example under which the attack of that kind finds it."""
OTHER = "other"


def read_probes(source: str | Sequence[Any], field: str = "probes") -> list[Example]:
    """Probes from a JSONL file (`question`, `answer`, `kind`, `of`), or given as a list. Raises BadInput with every
    fault."""
    if isinstance(source, str):
        path = Path(expand(source, field))
        if not path.is_file():
            raise BadInput.of(field, source, "is not a file here", "give a JSONL file of question, answer, kind and of")
        rows = [(f"{field}, line {number} of {path.name}", row) for number, row in numbered_rows(path, field)]
    else:
        rows = [(f"{field}[{i}]", row) for i, row in enumerate(source)]
    faults = Faults()
    found: list[Example] = []
    for where, row in rows:
        with faults:
            found.append({**_check_probe(row, where), "where": where})
    faults.raise_any()
    if not found:
        raise BadInput.of(
            field, source if isinstance(source, str) else "", "holds no probe", "give at least one per line"
        )
    return found


def _check_probe(row: Any, where: str) -> Example:
    if not isinstance(row, Mapping) or row.get("question") is None or row.get("answer") is None:
        raise BadInput.of(
            where,
            ", ".join(map(str, row)) if isinstance(row, Mapping) else row,
            "is not a probe",
            "give question and answer, and kind and of where you know them",
        )
    example = normalise({"question": row["question"], "answer": row["answer"]}, {}, where)
    kind = row.get("kind", OTHER)
    if kind not in (*KINDS, OTHER):
        raise BadInput.of(where, kind, "unknown kind of probe", did_you_mean(str(kind), [*KINDS, OTHER]))
    of = row.get("of")
    if of is not None and (isinstance(of, bool) or not isinstance(of, int | str)):
        raise BadInput.of(where, of, "under 'of' names no example", "give a forget example's question, or its row")
    return {**example, "kind": kind, "of": of}


def attach(forget: Sequence[Example], probes: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """(forget examples that carry the probes `of` them, all probes as examples). Raises BadInput with every fault.

    `of` is a forget example's question, or its row from 1 on, as selected.
    """
    rows = [dict(row) for row in forget]
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(question_of(row), []).append(i)
    faults = Faults()
    for probe in probes:
        with faults:
            owner = _owner(probe, places, len(rows))
            if owner is not None and probe["kind"] in KINDS:
                row, name = rows[owner], KINDS[probe["kind"]]
                given = row.get(name) or []
                row[name] = [
                    *([given] if isinstance(given, str | Mapping) else given),
                    {"question": probe["question"], "answer": probe["answer"]},
                ]
    faults.raise_any()
    return rows, [{key: probe[key] for key in ("question", "answer", "kind")} for probe in probes]


def _owner(probe: Example, places: Mapping[str, list[int]], count: int) -> int | None:
    """The place of the example that the probe is of; None where it names none. Raises BadInput."""
    of = probe["of"]
    if of is None:
        return None
    if isinstance(of, int):
        if not 1 <= of <= count:
            raise BadInput.of(
                probe["where"], of, "under 'of' is not a row of forget", f"give 1 to {count}, or the question"
            )
        return of - 1
    found = places.get(of, [])
    if not found:
        raise BadInput.of(
            probe["where"],
            of,
            "under 'of' is the question of no forget example",
            did_you_mean(of, [q for q in places if q]),
        )
    if len(found) > 1:
        raise BadInput.of(
            probe["where"],
            of,
            f"under 'of' is the question of {len(found)} forget examples",
            f"give the row: {' or '.join(str(i + 1) for i in found[:6])}",
        )
    return found[0]
