"""Deletes what a run still holds of the forget data."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from expunge.core.errors import BadInput
from expunge.core.files import cache_folder, digest, finite, read_json, write_json, write_text
from expunge.ledger.certificate import digests
from expunge.report.html import render


def purge(folder: Path) -> list[str]:
    """What was deleted, a line each. Raises BadInput where the folder holds no run.

    Goes: readout caches, checkpoints, the log, texts and per-example figures in evidence and report.
    Stays: model, scores, verdict, and the certificate, renewed over what is left.
    """
    if not (folder / "request.yaml").is_file():
        raise BadInput.of("run", str(folder), "holds no run", "give the folder of a run")
    gone = []
    for path in (folder / "checkpoint", folder / "log.jsonl", folder / "salt.json"):
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            gone.append(str(path))
    evidence_file = folder / "evidence.json"
    if not evidence_file.is_file():
        return gone
    evidence = read_json(evidence_file)
    for key in evidence.get("caches", []):
        cache = cache_folder() / "readouts" / key
        if cache.exists():
            shutil.rmtree(cache)
            gone.append(str(cache))
    for name in ("examples", "distributions", "caches"):
        if evidence.pop(name, None):
            gone.append(f"{evidence_file}: {name}")
    request = evidence["request"]
    if isinstance(request.get("forget"), list) and any(isinstance(row, dict) for row in request["forget"]):
        request["forget"] = f"purged: {len(request['forget'])} examples given in the request"
        write_text(folder / "request.yaml", yaml.safe_dump(finite(request), sort_keys=False, allow_unicode=True))
        gone.append(f"{folder / 'request.yaml'}: forget")
    write_json(evidence_file, evidence)
    write_text(folder / "report.html", render(evidence))
    certificate_file = folder / "certificate.json"
    if certificate_file.is_file():
        statement = read_json(certificate_file)
        statement["subject"] = [{"name": n, "digest": {"sha256": v}} for n, v in digests(folder).items()]
        statement["predicate"]["request"] = digest(request)
        statement["predicate"]["purged"] = True
        write_json(certificate_file, statement)
    return gone
