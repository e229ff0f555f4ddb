"""Finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput, Faults
from expunge.rundir import evidence_of


def compare(folders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Folder -> its evidence. Raises BadInput for each folder without."""
    folders = list(dict.fromkeys(folders))
    if len(folders) < 2:
        raise BadInput.of("runs", ", ".join(folders), "is one run", "name two or more")
    found: dict[str, dict[str, Any]] = {}
    faults = Faults()
    for folder in folders:
        with faults:
            found[folder] = evidence_of(Path(folder))
    faults.raise_any()
    return found


def rows(runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a run: the measured scores after the change, the verdict and the cost."""
    return [
        {"run": name, "method": evidence.get("method"), "passed": evidence["verdict"]["passed"],
         "seconds": evidence["cost"].get("unlearn_seconds"),
         **{s["name"]: s["value"] for s in evidence["scores"] if s["subject"] == "after"}}
        for name, evidence in runs.items()
    ]  # fmt: skip
