"""Delete what a run, an audit, a bench or a tuning still holds of the forget data."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from expunge.core import cache
from expunge.core.errors import BadInput
from expunge.core.files import TEMPORARY, delete, read_json, sweep, write_json, write_text
from expunge.core.request import redact_request
from expunge.data.worlds import is_builtin
from expunge.ledger.certificate import CERTIFICATE, POINTS, SALT, TEXTS, read_certificate, renew
from expunge.ledger.examples import BESIDE, EXAMPLES
from expunge.models.guarded import FOLDER as GUARD
from expunge.models.history import HISTORY
from expunge.models.manifest import MANIFEST
from expunge.pipeline.run_folder import SCRATCH, evidence_of, request_in, write_request
from expunge.pipeline.train import tidy, work_folder
from expunge.report import leaderboard
from expunge.report.html import render

KEY = re.compile("[0-9a-f]+")
MARKS = "marks.json"
"""The marks set by `expunge mark` and their twins, which reveal the marked rows."""
REQUEST = "request.yaml"
RUNS = ("leaderboard.json", "tune.json", cache.JOURNAL)
"""A folder with one of these may contain runs."""
DEEPEST = 3
"""Levels of folders below a bench that may contain its runs."""
TRIALS = "trials.log"
"""A tuning's record of its trials, which it needs to go on."""


def purge(folder: Path, *, guards: bool = False) -> list[str]:
    """Delete the forget data that a folder and the runs in it still hold; returns one line per deletion.

    Deleted: cache entries that were written or used (including the gold model), checkpoints, the log, texts and
    per-example figures in evidence and report, and examples given in the request itself; the checkpoints of an
    unfinished training. Of a model that a federation trained, what its server kept of the rounds, without which no
    client can leave by a method that reads it. Kept: model, scores, verdict, and the certificate, renewed over what is
    left. guards: also delete the model's guards, which hold traces of the forget set (their classifier, their
    text) and without which the model answers as it did before. Raises BadInput where the folder holds nothing of
    ours, or is in use.
    """
    gone = [*_of_training(folder), *_half_written(folder)]
    places = [place for place in (folder, *_runs_below(folder)) if _is_ours(place)]
    record = _record(folder)
    if not places and not gone and record is None:
        trained = not folder.is_symlink() and (folder / MANIFEST).is_file()
        why = "is a trained model, and holds no record of a federation's rounds" if trained else "holds no run"
        fix = "delete the folder, if the model must go" if trained else "give a folder written by expunge"
        raise BadInput.of("run", str(folder), why, fix)
    gone += _delete(record) if record else []
    for place in places:
        _check(place)
    for place in places:
        with _hold(place):
            gone += _purge(place, guards)
    return gone


def records_of(folder: Path) -> list[Path]:
    """The records of federations' servers beside the models that a run, or the runs of a bench, changed."""
    found = (_record_of(run) for run in (folder, *_runs_below(folder)))
    return list(dict.fromkeys(record for record in found if record is not None))


def _record_of(run: Path) -> Path | None:
    source = (request_in(run) or {}).get("model")
    place = Path(str(source["weights"])).parent if isinstance(source, Mapping) and "weights" in source else source
    return _record(Path(place)) if isinstance(place, str | Path) and not is_builtin(place) else None


def _record(folder: Path) -> Path | None:
    """The record beside a model that training wrote. A file alone, of whatever name, proves nothing."""
    if folder.is_symlink() or not all((folder / name).is_file() for name in (MANIFEST, HISTORY)):
        return None
    return folder / HISTORY


def purge_cache() -> list[str]:
    """Delete every cache entry that may hold texts of a forget set: all but embedded worlds and benches' bases."""
    root = cache.cache_folder()
    return [str(root / kind) for kind in cache.OF_RUNS if delete(root / kind)]


def _of_training(out: Path) -> list[str]:
    """Delete what a killed training left next to its folder."""
    work = work_folder(out)
    if not work.is_dir() or work.is_symlink():
        return []
    lock = work.with_suffix(".lock")
    try:
        with FileLock(lock, timeout=0):
            tidy(out)
            delete(work)
            lock.unlink(missing_ok=True)
    except Timeout:
        raise BadInput.of("run", str(out), "is being trained", "wait until it has finished") from None
    return [str(work)]


def _half_written(out: Path) -> list[str]:
    """Delete what a killed process left next to a folder that is written whole (marks)."""
    siblings = out.parent.iterdir() if out.parent.is_dir() else []
    if not any((found := TEMPORARY.fullmatch(path.name)) and found["name"] == out.name for path in siblings):
        return []
    lock = out.with_name(f".{out.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            gone = sweep(out.parent, out.name)
            lock.unlink(missing_ok=True)
    except Timeout:
        raise BadInput.of("run", str(out), "is being written", "wait until it has finished") from None
    return [str(out.parent / name) for name in gone]


def _is_ours(folder: Path) -> bool:
    """True where a command of ours wrote this folder; a file name that anybody may use proves nothing."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if _is_run(folder):
        return True
    return any((folder / name).is_file() for name in ("evidence.json", MARKS, *RUNS))


def _is_run(folder: Path) -> bool:
    return (folder / REQUEST).is_file() and any((folder / name).is_file() for name in (".lock", SALT, CERTIFICATE))


def _runs_below(folder: Path) -> list[Path]:
    """The folders of the runs inside a bench or a tuning."""
    if folder.is_symlink() or not any((folder / name).is_file() for name in RUNS):
        return []
    level, found = [folder], []
    for _ in range(DEEPEST):
        level = [path for one in level for path in sorted(one.iterdir()) if path.is_dir() and not path.is_symlink()]
        level = [path for path in level if path.name not in ("model", SCRATCH)]
        found += level
    return [path for path in found if _is_run(path)]


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """Lock the folder against a run in it."""
    file = folder / ".lock"
    if file.is_symlink():
        raise BadInput.of("run", str(file), "is a link, and runs create none", "delete it")
    try:
        with FileLock(file, timeout=0):
            yield
    except Timeout:
        raise BadInput.of("run", str(folder), "is in use by another process", "wait until it has finished") from None


def _check(folder: Path) -> None:
    """Check that everything that must be changed can be read, before anything is deleted. Raises BadInput."""
    request_in(folder)
    if (folder / "evidence.json").is_file():
        evidence = evidence_of(folder)
        if not isinstance(evidence.get("request"), dict):
            raise BadInput.of("run", str(folder / "evidence.json"), "holds no request", "delete the folder by hand")
    for name in ("leaderboard.json", "tune.json", SALT):
        if (folder / name).is_file():
            _mapping(folder / name)
    if (folder / CERTIFICATE).is_file():
        read_certificate(folder / CERTIFICATE)
    for name in (SCRATCH, "model"):
        if (folder / name).is_symlink():
            raise BadInput.of("run", str(folder / name), "is a link, and runs create none", "delete it")


def _mapping(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        if isinstance(found, dict):
            return found
        reason = "it is not a mapping"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    raise BadInput.of("run", str(path), f"cannot be read ({reason})", "delete the folder by hand")


def _purge(folder: Path, guards: bool) -> list[str]:
    gone = _delete(folder / "model" / GUARD) if guards else []
    cache.sweep_scratch()
    for entry in _entries(folder):
        gone += [str(path) for path in cache.remove(entry)]
    sweep(folder)
    for name in (SCRATCH, "log.jsonl", SALT) if _is_run(folder) else (cache.JOURNAL, TRIALS, MARKS, SALT):
        gone += _delete(folder / name)
    gone += _from_request(folder)
    gone += _from_leaderboard(folder)
    if (folder / "evidence.json").is_file():
        gone += _from_evidence(folder)
    return gone


def _entries(folder: Path) -> list[str]:
    """The cache entries of a folder: from its journal, and from the copy that a finished run keeps."""
    found = {*cache.read_journal(folder / SCRATCH / cache.JOURNAL), *cache.read_journal(folder / cache.JOURNAL)}
    salt = _mapping(folder / SALT) if (folder / SALT).is_file() else {}
    found |= {entry for entry in salt.get("caches", []) if isinstance(entry, str) and cache.ENTRY.fullmatch(entry)}
    if (folder / "evidence.json").is_file():  # runs of earlier versions listed theirs there
        keys = [key for key in evidence_of(folder).get("caches", []) if KEY.fullmatch(str(key))]
        found |= {entry for key in keys for entry in (f"readouts/{key}", f"attacks/{key}.json")}
    return sorted(found)


def _from_request(folder: Path) -> list[str]:
    """Remove the examples from request.yaml and from the tuned request."""
    gone = []
    for name in ("request.yaml", "best.yaml"):
        request = request_in(folder, name)
        if request is not None and (shown := redact_request(request)) != request:
            write_request(folder, shown, name)
            gone.append(f"{folder / name}: examples")
    return gone


def _from_leaderboard(folder: Path) -> list[str]:
    path = folder / "leaderboard.json"
    found = _mapping(path) if path.is_file() else {}
    if not isinstance(found.get("request"), dict) or (shown := redact_request(found["request"])) == found["request"]:
        return []
    write_json(path, {**found, "request": shown})
    write_text(folder / "leaderboard.html", leaderboard.render({**found, "request": shown}))
    return [f"{path}: examples of the request"]


def _from_evidence(folder: Path) -> list[str]:
    """Remove texts and per-example figures from evidence and report, and renew the certificate."""
    path, evidence, gone = folder / "evidence.json", evidence_of(folder), []
    if (shown := redact_request(evidence["request"])) != evidence["request"]:
        evidence["request"] = shown
        gone.append(f"{path}: examples of the request")
    gone += [f"{path}: {name}" for name in (*TEXTS, *POINTS, *BESIDE, "caches") if evidence.pop(name, None)]
    gone += _delete(folder / EXAMPLES)
    write_json(path, evidence)
    if (folder / "report.html").is_file():
        write_text(folder / "report.html", render(evidence))
    if (folder / CERTIFICATE).is_file():
        renew(folder, evidence)
    return gone


def _delete(path: Path) -> list[str]:
    return [str(path)] if delete(path) else []
