"""The inputs of a run. A resumed run goes on only where none of them has changed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from expunge.alignment.judges import judge_of
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import PRIVATE, digest, read_sealed, write_sealed
from expunge.core.version import versions
from expunge.data.examples import content
from expunge.data.rows import IN_MEMORY
from expunge.ledger.certificate import imprint, salt_of
from expunge.pipeline.apply import DONE
from expunge.pipeline.observe import Observation
from expunge.pipeline.partition import join
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH

FILE = "inputs.json"
OPAQUE = ("base", "gold", "second gold", "judge", "training manifest", "code")
"""Inputs of which a change alone can be seen, not its extent."""
TRIAL = "trial-"
"""Beginning of the name of a folder in the scratch: of a trial of `method: auto`."""
METHOD_FILE = "method file"
"""Beginning of the name of an input that an option of the method names."""


def record_base(plan: Plan, fingerprint: Any, folder: Path) -> None:
    """Record all inputs but gold. fingerprint: of the model before. Raises BadInput where one has changed."""
    if processes.main():
        _record(folder, _inputs(plan, fingerprint, folder))


def record_golds(golds: Mapping[str, Observation], folder: Path) -> None:
    """Record gold and, where there is one, the second gold by their fingerprints. Raises BadInput where one changed."""
    if processes.main():
        known = {role: one.fingerprint for role, one in golds.items() if role == "gold" or one.fingerprint}
        _record(folder, {role.replace("_", " "): imprint(fingerprint) for role, fingerprint in known.items()})


def _inputs(plan: Plan, base: Any, folder: Path) -> dict[str, Any]:
    """Name -> identity of this input: a digest, a figure, or a salted hash of each row."""
    salt = salt_of(folder)
    rows = join(plan.splits)
    named: dict[str, Any] = {"base": imprint(base), "training manifest": digest(plan.manifest)}
    if plan.aligned:
        rows["alignment prompts"] = [*plan.aligned.pack.rows, *plan.aligned.pack.bbq]
        named["judge"] = digest(judge_of(plan.aligned.judge).key)
    return {
        **named,
        **{name: _seals(found, salt) for name, found in rows.items()},
        **{f"{METHOD_FILE} {path}": found for path, found in plan.files.items()},
        "threads": torch.get_num_threads(),
        "processes": processes.world(),
        "device": processes.device().type,
        **versions(),
    }


def _seals(rows: Iterable[Example], salt: bytes) -> list[str] | dict[str, Any]:
    """A salted hash of each row; of many rows their number, and one hash of them all."""
    seals: list[str] = []
    whole, count = hmac.new(salt, digestmod=hashlib.sha256), 0
    for count, row in enumerate(rows, 1):
        seal = _seal(row, salt)
        whole.update(seal.encode())
        if count <= IN_MEMORY:
            seals.append(seal)
    return seals if count <= IN_MEMORY else {"rows": count, "seal": whole.hexdigest()}


def _seal(row: Example, salt: bytes) -> str:
    """A salted hash: a plain one of a short record could be guessed."""
    return hmac.new(salt, content(row).encode(), hashlib.sha256).hexdigest()[:24]


def _record(folder: Path, now: Mapping[str, Any]) -> None:
    """Write down inputs that are not known yet, and compare the others."""
    path = folder / SCRATCH / FILE
    before = read_sealed(path) if path.exists() or _has_begun(folder) else {}
    if before is None:
        raise BadInput.of("--resume", str(path), "is damaged or lost", "start anew in another folder")
    changed = [
        _difference(name, before[name], found)
        for name, found in now.items()
        if name in before and before[name] != found
    ]
    if changed:
        raise BadInput.of(
            "--resume",
            str(folder),
            f"began with other inputs; changed since: {', '.join(changed)}",
            "put them back, or start anew in another folder",
        )
    if not now.keys() <= before.keys():
        write_sealed(path, {**before, **now}, PRIVATE)


def _has_begun(folder: Path) -> bool:
    """Whether anything of the method is there: its inputs were recorded before it began."""
    places = ("model", f"{SCRATCH}/{DONE}", f"{SCRATCH}/checkpoint")
    return any((folder / place).exists() for place in places) or any((folder / SCRATCH).glob(f"{TRIAL}*"))


def _difference(name: str, before: Any, now: Any) -> str:
    """A change in words: `forget (3 of 8 rows)`, `threads (2, now 1)`, `base`."""
    if isinstance(before, list) and isinstance(now, list):
        if len(before) != len(now):
            return f"{name} ({len(before)} rows, now {len(now)})"
        return f"{name} ({sum(a != b for a, b in zip(before, now, strict=True))} of {len(now)} rows)"
    counts = [found["rows"] if isinstance(found, dict) else len(found) for found in (before, now) if _of_rows(found)]
    if len(counts) == 2:
        return name if counts[0] == counts[1] else f"{name} ({counts[0]} rows, now {counts[1]})"
    return name if name in OPAQUE or name.startswith(METHOD_FILE) else f"{name} ({before}, now {now})"


def _of_rows(found: Any) -> bool:
    return isinstance(found, list) or (isinstance(found, dict) and "rows" in found)
