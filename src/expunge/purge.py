"""Deletes what a run still holds of the forget data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from expunge.core.errors import BadInput
from expunge.core.files import cache_folder, finite, write_json, write_text
from expunge.core.request import redacted
from expunge.ledger.certificate import CERTIFICATE, renew
from expunge.report.html import render
from expunge.rundir import evidence_of
from expunge.subjects.guarded import FOLDER as GUARD

KEY = re.compile("[0-9a-f]+")
"""A readout cache's name: a digest."""


def purge(folder: Path, *, guards: bool = False) -> list[str]:
    """What was deleted, a line each. Raises BadInput where the folder holds no run, or one that is going on.

    Goes: caches of readouts and attacks, checkpoints, the log, texts and per-example figures in evidence and report,
    examples given in the request itself. Stays: model, scores, verdict, and the certificate, renewed
    over what is left. guards: also take the model's guards away, which hold traces of the forget set (their
    classifier, their text) and without which the model answers as it did before.
    """
    if not (folder / "request.yaml").is_file():
        raise BadInput.of("run", str(folder), "holds no run", "give the folder of a run")
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput.of("run", str(folder), "is in use by another process", "wait until it has ended") from None
    try:
        return _purged(folder, guards)
    finally:
        lock.release()


def _purged(folder: Path, guards: bool) -> list[str]:
    gone = _delete(folder / "model" / GUARD) if guards else []
    for name in ("checkpoint", "log.jsonl", "salt.json"):
        gone += _delete(folder / name)
    evidence_file, request_file = folder / "evidence.json", folder / "request.yaml"
    evidence = evidence_of(folder) if evidence_file.is_file() else None
    for key in (evidence or {}).get("caches", []):
        if KEY.fullmatch(str(key)):  # the file may be another's: its names must not lead elsewhere
            gone += _delete(cache_folder() / "readouts" / key)
            gone += _delete(cache_folder() / "attacks" / f"{key}.json")
    request = yaml.safe_load(request_file.read_text(encoding="utf-8"))
    if _without_examples(request):
        write_text(request_file, yaml.safe_dump(finite(request), sort_keys=False, allow_unicode=True))
        gone.append(f"{request_file}: examples")
    if evidence is None:
        return gone
    if _without_examples(evidence["request"]):
        gone.append(f"{evidence_file}: examples of the request")
    for name in ("examples", "distributions", "attack_texts", "rocs", "caches", "method_notes"):
        if evidence.pop(name, None):
            gone.append(f"{evidence_file}: {name}")
    write_json(evidence_file, evidence)
    write_text(folder / "report.html", render(evidence))
    if (folder / CERTIFICATE).is_file():
        renew(folder, evidence)
    return gone


def _delete(path: Path) -> list[str]:
    if not path.exists():
        return []
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [str(path)]


def _without_examples(request: dict[str, Any]) -> bool:
    """Takes out what of the request itself may name the forget set, in place; True where there was any.

    Under a selector the examples stand in `data`, and nobody but the selector knows which are forgotten.
    """
    shown = redacted(request)
    changed = shown != request
    request.update(shown)
    return changed
