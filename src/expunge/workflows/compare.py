"""Finished runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput, Faults
from expunge.ledger.evidence import Evidence
from expunge.pipeline.run_folder import evidence_of


def compare(folders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Folder -> its evidence. Raises BadInput for each folder without."""
    folders = list(dict.fromkeys(folders))
    if len(folders) < 2:
        raise BadInput.of("runs", ", ".join(folders), "is one run", "name two or more")
    found: dict[str, dict[str, Any]] = {}
    faults = Faults()
    for folder in folders:
        with faults:
            found[folder] = _check(evidence_of(Path(folder)), folder)
    faults.raise_any()
    return found


def _check(evidence: dict[str, Any], folder: str) -> dict[str, Any]:
    """The evidence, where it has the shape of its schema. Raises BadInput."""
    try:
        Evidence.parse(evidence)
    except ValueError as error:
        raise BadInput.of(
            "run", folder, f"holds an evidence.json that is broken at {error}", "give the folder of a finished run"
        ) from None
    return evidence


def rows(runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per run: the measured scores after the change, the verdict and the cost."""
    return [
        {
            "run": name,
            "method": evidence.get("method"),
            "passed": evidence["verdict"]["passed"],
            "seconds": evidence["cost"].get("unlearn_seconds"),
            **{s["name"]: s["value"] for s in evidence["scores"] if s["subject"] == "after"},
        }
        for name, evidence in runs.items()
    ]


def data_note(runs: dict[str, dict[str, Any]]) -> str:
    """Whether the runs forgot the same rows, as far as their evidence shows it.

    A run keeps its rows as salted hashes alone, which do not compare across runs; their number, and the figures of one
    base model on them, do.
    """
    (first, one), *others = runs.items()
    for name, other in others:
        counts = [{s["n"] for s in run["scores"] if s["name"] == "forget_nll"} for run in (one, other)]
        if all(counts) and counts[0] != counts[1]:
            numbers = " and ".join(str(max(found)) for found in counts)
            return f"{first} and {name} forgot different data ({numbers} rows): their figures do not compare."
        bases = [(run.get("inputs") or {}).get("base") for run in (one, other)]
        figures = [
            [s["value"] for s in run["scores"] if (s["name"], s["subject"]) == ("forget_nll", "before")]
            for run in (one, other)
        ]
        if (
            bases[0]
            and bases[0] == bases[1]
            and all(figures)
            and not math.isclose(figures[0][0], figures[1][0], rel_tol=1e-3)
        ):
            return f"{first} and {name} forgot different data: the same base model scores differently on them."
    return (
        "Whether the runs forgot the same data cannot be told: each keeps its rows as hashes under a salt of its own."
    )
