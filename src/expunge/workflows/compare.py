"""Finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from expunge.core.errors import BadInput, Faults
from expunge.pipeline.run_folder import evidence_of


class _Score(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    side: str
    model: str
    split: str | None = None
    unit: str | None = None
    better: str | None = None
    status: str = "measured"
    why: str | None = None
    value: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    n: int | None = None


class _Verdict(BaseModel):
    model_config = ConfigDict(strict=True)

    passed: bool | None


class _Evidence(BaseModel):
    """What a comparison reads of an evidence.json, which may be anybody's."""

    model_config = ConfigDict(strict=True)

    scores: list[_Score]
    cost: dict[str, FiniteFloat | dict[str, Any] | list[Any] | str | bool | None]
    verdict: _Verdict
    method: str | dict[str, Any] | None = None


TIMES = ("unlearn_seconds", "gold_seconds", "peak_memory_bytes", "tokens", "steps_retrained", "steps_total")
"""Entries of the cost that are numbers."""


def compare(folders: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Folder -> its evidence. Raises BadInput for each folder without."""
    folders = list(dict.fromkeys(folders))
    if len(folders) < 2:
        raise BadInput.of("runs", ", ".join(folders), "is one run", "name two or more")
    found: dict[str, dict[str, Any]] = {}
    faults = Faults()
    for folder in folders:
        with faults:
            found[folder] = _whole(evidence_of(Path(folder)), folder)
    faults.raise_any()
    return found


def _whole(evidence: dict[str, Any], folder: str) -> dict[str, Any]:
    """The evidence, where it has the shape that a comparison reads. Raises BadInput."""
    try:
        cost = _Evidence.model_validate(evidence).cost
        where = next((name for name in TIMES if not isinstance(cost.get(name), float | int | None)), "")
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
    if where:
        raise BadInput.of(
            "run", folder, f"holds an evidence.json that is broken at {where}", "give the folder of a finished run"
        )
    return evidence


def rows(runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a run: the measured scores after the change, the verdict and the cost."""
    return [
        {
            "run": name,
            "method": evidence.get("method"),
            "passed": evidence["verdict"]["passed"],
            "seconds": evidence["cost"].get("unlearn_seconds"),
            **{s["name"]: s.get("value") for s in evidence["scores"] if s["subject"] == "after"},
        }
        for name, evidence in runs.items()
    ]
