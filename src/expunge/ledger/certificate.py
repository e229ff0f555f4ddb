"""certificate.json: an in-toto Statement v1 about a run, and its verification.

Subject: digests of the model's files, the evidence, the report and the request. The forget set is
committed to by salted hashes: a plain hash of a short record can be guessed. The salt stays with
the holder of the run, in `salt.json`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import PRIVATE, digest, digest_file, finite, read_json, write_json
from expunge.data.examples import identity

SALT = "salt.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:expunge:certificate:v1"
LIMITS = (
    "It does not prove that no other copy of the data or of the model exists.",
    "It does not prove that an attack which was not run would fail.",
    "Digests show that files are unchanged since the run; without a signature they do not show who made it.",
)


GUARDED = "It does not prove that the model forgot: the weights are unchanged, and without guard/ it answers as before."


def commitments(examples: Sequence[Example], salt: bytes) -> list[str]:
    """HMAC-SHA-256 of each example's identity under the salt, sorted."""
    return sorted(hmac.new(salt, identity(e).encode(), hashlib.sha256).hexdigest() for e in examples)


def salt_of(folder: Path) -> bytes:
    """The salt of the run in `folder`, drawn where there is none; it stays with the holder, in `salt.json`."""
    file = folder / SALT
    if not file.exists():
        write_json(file, {"salt": secrets.token_hex(32)}, PRIVATE)
    return bytes.fromhex(read_json(file)["salt"])


def seal(request: dict[str, Any], salt: bytes) -> str:
    """HMAC-SHA-256 of a resolved request under the salt: tells it from another where the text is redacted."""
    return hmac.new(salt, digest(finite(request)).encode(), hashlib.sha256).hexdigest()


def certificate(folder: Path, evidence: dict[str, Any], forget: Sequence[Example], method: Any) -> dict[str, Any]:
    """The unsigned statement about the run in `folder`; writes the salt beside it."""
    salt = salt_of(folder)
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in digests(folder).items()],
        "predicateType": PREDICATE,
        "predicate": {
            "request": digest(evidence["request"]),
            "method": method,
            "forget": {"count": len(forget), "commitments": commitments(forget, salt)},
            "thresholds": evidence["request"].get("accept", {}),
            "verdict": evidence["verdict"],
            "environment": evidence["environment"],
            "cannot_prove": [*([GUARDED] if evidence.get("yields") == "guard" else []), *LIMITS],
        },
    }


def digests(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of all that the certificate vouches for."""
    names = ["evidence.json", "report.html", "request.yaml", "README.md"]
    names += sorted(p.relative_to(folder).as_posix() for p in (folder / "model").rglob("*") if p.is_file())
    return {name: digest_file(folder / name) for name in names if (folder / name).is_file()}


@dataclass
class Verification:
    """What an auditor learns: the files that match and those that do not; the verdict of the run."""

    matching: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    signed: bool = False
    signature: str = "unsigned"
    passed: bool | None = None

    @property
    def good(self) -> bool:
        return not (self.changed or self.missing or self.added) and self.signature in ("unsigned", "valid")

    def to_json(self) -> dict[str, Any]:
        return {"good": self.good, "matching": self.matching, "changed": self.changed, "missing": self.missing,
                "added": self.added, "signature": self.signature, "verdict": {"passed": self.passed}}  # fmt: skip


def verify(path: Path, key: Path | None = None) -> Verification:
    """Recomputes every digest beside the certificate. Raises BadInput where it cannot be read.

    With a key an unsigned certificate does not verify.
    """
    if path.is_dir():
        path = path / "certificate.json"
    try:
        statement = json.loads(path.read_text(encoding="utf-8"))
        claimed = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
        predicate = statement["predicate"]
        if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
            raise ValueError("not a certificate of ours")
        passed = predicate["verdict"]["passed"]
        if passed not in (True, False, None) or not all(isinstance(v, str) for pair in claimed.items() for v in pair):
            raise ValueError("not a certificate of ours")
    except FileNotFoundError:
        raise BadInput.of("certificate", str(path), "does not exist", "give a run's certificate.json") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput.of("certificate", str(path), f"is no certificate ({type(error).__name__}: {error})",
                          "give a run's certificate.json") from None  # fmt: skip
    found = Verification(passed=passed)
    folder = path.parent
    for name, value in claimed.items():
        place = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not _is_file(place):
            found.missing.append(name)
        elif digest_file(place) == value:
            found.matching.append(name)
        else:
            found.changed.append(name)
    found.added = sorted(name for name in digests(folder) if name not in claimed)
    evidence = folder / "evidence.json"
    if evidence.is_file() and "evidence.json" in found.matching:
        shown = read_json(evidence)
        if not isinstance(shown, dict) or shown.get("verdict") != predicate["verdict"]:
            found.changed.append("certificate.json (its verdict is not the evidence's)")
    if key is not None:
        found.signature = "missing, and a key was given"
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no path can have
        return False
