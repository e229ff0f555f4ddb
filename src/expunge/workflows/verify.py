"""A run's folder against its certificate, and its figures against its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput, one_line
from expunge.core.files import digest_file
from expunge.ledger.certificate import (
    CERTIFICATE,
    LOCK,
    LOG,
    NAMED,
    PURGED,
    SALT,
    Tree,
    read_certificate,
    tree,
)
from expunge.methods.facts import check_facts, has_facts, keys_in
from expunge.models.manifest import MANIFEST
from expunge.workflows._contradictions import Contents, file_kind
from expunge.workflows._remeasure import Measured, remeasure

WEIGHTS = (".safetensors", ".ubj")
"""Endings of the files that hold a model's weights, or its trees."""
UNSIGNED = (
    "Unsigned: that the files belong together is shown, not who made them. Whoever can write to the folder can also "
    "make up figures with a certificate to match; --measure sees that."
)

NO_CERTIFICATE = (
    "A training has no certificate: its rounds follow from one another and from what was kept, or they do not. Whoever "
    "can write to the folder can also make up rounds."
)


@dataclass
class Verification:
    """The files that match and those that do not, each named, and the verdict of the run.

    changed: also names in brackets the fault of a file whose digest matches. added: files that a run does not leave.
    remarks: sentences on what could not be checked.
    """

    matching: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    signature: str = "unsigned"
    passed: bool | None = None
    remarks: list[str] = field(default_factory=list)
    measured: Measured | None = None
    alone: bool = False
    """Whether only a federation's rounds were checked: the folder is a training's, which has no certificate."""

    @property
    def differences(self) -> list[str]:
        """Every difference from what is certified, one line each."""
        lists = {"changed": self.changed, "missing": self.missing, "added": self.added}
        return [f"{word}: {name}" for word, names in lists.items() for name in names]

    @property
    def good(self) -> bool:
        measured = self.measured is None or self.measured.good
        return not self.differences and measured and self.signature in ("unsigned", "valid")

    def to_json(self) -> dict[str, Any]:
        return {
            "good": self.good,
            "matching": self.matching,
            "changed": self.changed,
            "missing": self.missing,
            "added": self.added,
            "signature": self.signature,
            "verdict": {"passed": self.passed},
            "remarks": self.remarks,
            **({"measured": self.measured.to_json()} if self.measured else {}),
        }

    def fault(self, name: str, why: str) -> None:
        """Note a file whose content is not what it must be."""
        self.changed.append(one_line(f"{name} ({why})"))


def verify(
    path: str | Path,
    key: Path | None = None,
    *,
    measure: bool = False,
    trust_code: bool = False,
    parties: Path | None = None,
    reporter: Reporter | None = None,
) -> Verification:
    """Check all that lies in a run's folder against its certificate, and the certificate against the evidence.

    path: the folder, or its certificate.json; or a model's folder that a federation wrote, of which the rounds are
    checked: their links, and what the server kept of them. With a key an unsigned certificate does not verify.
    measure: where all else is as certified, also read the model again and compare the figures; trust_code: the run's
    request may open its model with code of its own. parties: a folder of the public keys of a federation's clients, by
    which their claims must be signed. Raises BadInput where there is no certificate, or nothing to measure with.
    """
    folder = _folder(Path(path))
    keys = keys_in(parties) if parties else {}
    if not file_kind(folder / CERTIFICATE) and has_facts(folder):
        return _of_training(folder, trust_code, keys)
    result = Verification(signature="unsigned" if key is None else "missing, and a key was given")
    if key is None:
        result.remarks.append(UNSIGNED)
    kind = file_kind(folder / CERTIFICATE)
    if kind == "a link":
        result.added.append(f"{CERTIFICATE} (a link)")
        return result
    if kind == "no file":
        raise BadInput.of("certificate", str(folder / CERTIFICATE), "is not a file", "give a run's certificate.json")
    statement, data = read_certificate(folder / CERTIFICATE)
    result.passed = statement["predicate"]["verdict"]["passed"]
    _files(result, folder, statement)
    Contents(result, folder, statement, data, keys).check()
    if measure and result.differences:
        result.remarks.append("The model was not read: the folder is not as certified.")
    elif measure:
        result.measured = remeasure(folder, statement, trust_code=trust_code, reporter=reporter)
    return result


def _of_training(folder: Path, trust_code: bool, keys: Mapping[str, str]) -> Verification:
    """The facts of a federation's rounds against the model and the rounds that its server kept, and the claims."""
    faults = check_facts(folder, trust_code, keys)
    result = Verification(matching=[] if faults else [MANIFEST], alone=True)
    result.remarks.append(NO_CERTIFICATE)
    for why in faults:
        result.fault(MANIFEST, why)
    return result


def _folder(path: Path) -> Path:
    """The run's folder, given it or its certificate.json. Raises BadInput."""
    try:
        if path.is_dir():
            return path
        there = path.exists()
    except (OSError, ValueError):  # a name that no path can have
        there = False
    if path.name != CERTIFICATE:
        why = "is not a certificate.json" if there else "does not exist"
        raise BadInput.of("certificate", str(path), why, "give a run's certificate.json")
    return path.parent


# -- files -----------------------------------------------------------------------------------------


def _files(result: Verification, folder: Path, statement: Mapping[str, Any]) -> None:
    """Compare every file by its digest; note missing and added ones."""
    claimed: dict[str, str] = {}
    for item in statement["subject"]:
        name = item["name"]
        if not _is_name(name):
            result.fault(CERTIFICATE, f"names {name[:200]!r}, which no run holds")
        elif name in claimed:
            result.fault(CERTIFICATE, f"names {name} twice")
        else:
            claimed[name] = item["digest"]["sha256"]
    there = tree(folder)
    for name, value in claimed.items():
        if name not in there.files:
            result.missing.append(one_line(name))
        elif _matches(folder / name, value):
            result.matching.append(name)
        else:
            result.changed.append(name)
    predicate = statement["predicate"]
    purged, older = predicate.get("purged") is True, "digest" not in predicate
    needed = [name for name in NAMED if not (purged and name in PURGED) and not (older and name == LOG)]
    result.missing += [f"{name} (the certificate does not name it)" for name in needed if name not in claimed]
    if not any(name.endswith(WEIGHTS) and not name.startswith("model/guard/") for name in claimed):
        result.missing.append("model/*.safetensors (the certificate names no weights)")
    result.added += _added_files(there, {*claimed, CERTIFICATE, SALT}, folder, old=older)


def _is_name(name: str) -> bool:
    """Whether a run can hold a file of this name: a plain path in model/, or one of our own."""
    if name in NAMED:
        return True
    pure = PurePosixPath(name)
    plain_name = name.isprintable() and "\\" not in name and pure.as_posix() == name
    return plain_name and len(pure.parts) > 1 and pure.parts[0] == "model" and ".." not in pure.parts


def _matches(path: Path, value: str) -> bool:
    try:
        return digest_file(path) == value
    except OSError:
        return False


def _added_files(there: Tree, known: set[str], folder: Path, *, old: bool) -> list[str]:
    extra = {name: "" for name in there.files - known} | there.others
    if LOCK in extra and not extra[LOCK]:
        if (folder / LOCK).stat().st_size == 0:
            del extra[LOCK]
        else:
            extra[LOCK] = "not empty"
    if old and extra.get(LOG) == "":
        del extra[LOG]
    return [one_line(f"{name} ({why})" if why else name) for name, why in sorted(extra.items())]
