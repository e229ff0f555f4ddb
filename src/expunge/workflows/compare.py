"""Finished runs side by side."""

from __future__ import annotations

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
