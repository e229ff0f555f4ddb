"""certificate.json: an in-toto Statement v1 about a run; made, renewed and read here.

Subject: digests of the model's files, the evidence, the report, the request and the log. Data are committed to by
salted hashes: a plain hash of a short record can be guessed. The salt stays with the holder of the run, in `salt.json`.
Both files are canonical JSON, so that no byte of them can change unseen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import PRIVATE, canonical, digest, digest_file, finite, write_text
from expunge.data.examples import identity
from expunge.ledger.evidence import SECOND_GOLD
from expunge.ledger.examples import EVIDENCE, EXAMPLES

CERTIFICATE = "certificate.json"
SALT = "salt.json"
LOCK = ".lock"
LOG = "log.jsonl"
NAMED = (EVIDENCE, EXAMPLES, "report.html", "request.yaml", "README.md", LOG)
"""Files that every certificate names besides those of the model."""
PURGED = (EXAMPLES, LOG)
"""Of these, the files that a purge takes away."""
TEXTS = ("attack_texts", "rocs", "method_notes")
"""Fields of a run's evidence that hold texts, or a figure for each example: a purge takes them away."""
POINTS = ("feature_map",)
"""The same, of some families' runs alone."""
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:expunge:certificate:v1"
LIMITS = (
    "It does not prove that no other copy of the data or of the model exists.",
    "It does not prove that an attack which was not run would fail.",
    "Digests show that files are unchanged since the run; without a signature they do not show who made it.",
)
GUARDED = "It does not prove that the model forgot: the weights are unchanged, and without guard/ it answers as before."
CERTIFIED = (
    "The (epsilon, delta) bound is of {scope} alone and of this one removal, for whoever does not have the noise that "
    "the run drew and deleted; it says nothing of the weights below ({below})."
)
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Errors that a file from elsewhere can cause while it is read."""


# -- reading ---------------------------------------------------------------------------------------


def strict_json(data: bytes) -> Any:
    """The JSON value of the bytes. Raises ValueError for a repeated key, or a number that JSON does not have."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            raise ValueError("a key is repeated")
        return made

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not a number")

    return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)


def serialise(value: Any) -> bytes:
    """The only bytes that represent the value."""
    return (canonical(value) + "\n").encode()


@dataclass
class Tree:
    """The content of a folder. files: the regular files. others: links, special files, empty folders and folders that
    cannot be listed, each with its kind."""

    files: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)


def tree(folder: Path) -> Tree:
    """All that lies under the folder; no link is followed."""
    found = Tree()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            entries = list(os.scandir(folder / inside))
        except (OSError, ValueError):
            found.others[inside or "."] = "cannot be listed"
            continue
        if not entries:
            found.others[inside or "."] = "an empty folder"
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_symlink():
                found.others[name] = "a link"
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            elif entry.is_file(follow_symlinks=False):
                found.files.add(name)
            else:
                found.others[name] = "a special file"
    return found


SALT_FIELDS = {"salt", "request", "caches", "certificate"}


def read_salt(folder: Path) -> dict[str, Any]:
    """salt.json: the salt; of a finished run also its cache entries, and the seals of request and certificate.

    Raises BadInput.
    """
    file = folder / SALT
    try:
        kept = strict_json(file.read_bytes())
        texts = [kept.get("salt"), kept.get("request", ""), kept.get("certificate", ""), *kept.get("caches", [])]
        if not set(kept) <= SALT_FIELDS or not all(isinstance(text, str) for text in texts):
            raise ValueError("it holds something else")
        if len(bytes.fromhex(kept["salt"])) != 32:
            raise ValueError("the salt has not 32 bytes")
    except BROKEN as error:
        raise BadInput.of(
            "salt",
            str(file),
            f"cannot be read ({type(error).__name__}: {error})",
            "take it back from a copy of the run",
        ) from None
    return dict(kept)


# -- making ----------------------------------------------------------------------------------------


def salt_of(folder: Path) -> bytes:
    """The salt of the run in `folder`, drawn where there is none; it stays with the holder, in `salt.json`."""
    if not (folder / SALT).exists():
        write_salt(folder, {"salt": secrets.token_hex(32)})
    return bytes.fromhex(read_salt(folder)["salt"])


def write_salt(folder: Path, held: Mapping[str, Any]) -> None:
    """salt.json, for the holder of the run alone."""
    write_text(folder / SALT, serialise(held).decode(), PRIVATE)


def commitments(examples: Iterable[Example], salt: bytes) -> list[str]:
    """HMAC-SHA-256 of each example's identity under the salt, sorted."""
    return sorted(_mac(salt, identity(example)) for example in examples)


def commitment(examples: Iterable[Example], salt: bytes) -> str:
    """HMAC-SHA-256 under the salt of the sorted identities of a split."""
    names = np.fromiter((identity(example).encode() for example in examples), dtype="S64")  # a split may be large
    mac = hmac.new(salt, digestmod=hashlib.sha256)
    for i, name in enumerate(np.sort(names)):
        mac.update(b"\n" + name if i else name)
    return mac.hexdigest()


def seal(request: dict[str, Any], salt: bytes) -> str:
    """HMAC-SHA-256 of a resolved request under the salt: tells it from another where the text is redacted."""
    return _mac(salt, digest(finite(request)))


def _mac(salt: bytes, text: str) -> str:
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()


def imprint(fingerprint: Any) -> str:
    """SHA-256 of what an opened model is, on whatever device: weights, tokenizer, template.

    fingerprint: as the model gives it.
    """

    def still(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: still(item) for key, item in value.items() if key != "device"}
        return [still(item) for item in value] if isinstance(value, list | tuple) else value

    return digest(still(fingerprint))


def certificate(folder: Path, evidence: Mapping[str, Any], splits: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """The unsigned statement about the run in `folder`; draws the salt where there is none."""
    salt = salt_of(folder)
    inputs = evidence.get("inputs") or {}
    predicate = {
        **evidence_predicate(evidence),
        "forget": {"count": len(splits["forget"]), "commitments": commitments(splits["forget"], salt)},
        "inputs": {
            "base": inputs.get("base"),
            "gold": inputs.get("gold"),
            **({SECOND_GOLD: inputs[SECOND_GOLD]} if SECOND_GOLD in inputs else {}),
            "splits": {
                name: {"count": len(rows), "commitment": commitment(rows, salt)} for name, rows in splits.items()
            },
            **({"files": inputs["files"]} if "files" in inputs else {}),
        },
        "salt": hashlib.sha256(salt).hexdigest(),
    }
    return _add_digest(
        {
            "_type": STATEMENT,
            "subject": _subject(folder),
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )


def evidence_predicate(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the predicate that repeat the evidence."""
    request, guarantee = evidence["request"], evidence.get("guarantee")
    limits = [GUARDED] if evidence["yields"] == "guard" else [CERTIFIED.format(**guarantee)] if guarantee else []
    return {
        "request": digest(request),
        "method": finite(evidence["described"]),
        "thresholds": finite(request.get("accept") or {}),
        "verdict": finite(evidence["verdict"]),
        "environment": finite(evidence["environment"]),
        **({"guarantee": finite(guarantee)} if guarantee else {}),
        "cannot_prove": [*limits, *LIMITS],
    }


def _subject(folder: Path) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": value}} for name, value in digests(folder).items()]


def digests(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of all that the certificate vouches for."""
    there = tree(folder).files
    names = [*NAMED, *sorted(name for name in there if name.startswith("model/"))]
    return {name: digest_file(folder / name) for name in names if name in there}


def statement_digest(statement: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical statement without this digest itself."""
    predicate = {name: value for name, value in statement["predicate"].items() if name != "digest"}
    return digest({**statement, "predicate": predicate})


def _add_digest(statement: dict[str, Any]) -> dict[str, Any]:
    statement = finite(statement)
    statement["predicate"]["digest"] = statement_digest(statement)
    return statement


def salt_seal(statement: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    """HMAC-SHA-256 under the salt of the statement and of the other fields of salt.json."""
    others = {name: value for name, value in held.items() if name != "certificate"}
    return _mac(bytes.fromhex(held["salt"]), canonical([statement, others]))


def write_certificate(folder: Path, statement: Mapping[str, Any]) -> None:
    """certificate.json, the last file of a run; before it the salt with its seal of the statement."""
    if (folder / SALT).exists():
        kept = read_salt(folder)
        write_salt(folder, {**kept, "certificate": salt_seal(statement, kept)})
    write_text(folder / CERTIFICATE, serialise(statement).decode())


def renew(folder: Path, evidence: Mapping[str, Any]) -> None:
    """Writes the certificate of a purged run anew, over what is left: its commitments and what else it says stay.

    Raises BadInput where the certificate cannot be read.
    """
    statement = read_certificate(folder / CERTIFICATE)[0]
    statement["subject"] = _subject(folder)
    statement["predicate"] |= {"request": digest(evidence["request"]), "purged": True}
    newer = "digest" in statement["predicate"]
    write_certificate(folder, _add_digest(statement) if newer else statement)


def read_certificate(path: Path) -> tuple[dict[str, Any], bytes]:
    """(the statement in certificate.json, the file's bytes). Raises BadInput where it is none of ours."""
    try:
        data = path.read_bytes()
        statement = strict_json(data)
        if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
            raise ValueError("not a certificate of ours")
        if not all(
            isinstance(v, str) for item in statement["subject"] for v in (item["name"], item["digest"]["sha256"])
        ):
            raise ValueError("not a certificate of ours")
        passed = statement["predicate"]["verdict"]["passed"]
        if not isinstance(statement["predicate"], dict) or not (passed is None or isinstance(passed, bool)):
            raise ValueError("not a certificate of ours")
        serialise(statement)  # half a character, or a depth that nothing can write
    except FileNotFoundError:
        raise BadInput.of("certificate", str(path), "does not exist", "give a run's certificate.json") from None
    except BROKEN as error:
        raise BadInput.of(
            "certificate",
            str(path),
            f"is not a certificate ({type(error).__name__}: {error})",
            "give a run's certificate.json",
        ) from None
    return statement, data
