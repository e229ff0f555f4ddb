"""Is a run's folder what its certificate says; and are its figures what its model gives."""

from __future__ import annotations

import hashlib
import hmac
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from expunge.core.errors import BadInput, _line
from expunge.core.files import canonical, digest_file
from expunge.core.request import plain, read_config
from expunge.core.version import DRAWING_FIELDS, versions
from expunge.evidence import Score
from expunge.hidden import judged
from expunge.ledger.certificate import (
    BROKEN,
    CERTIFICATE,
    LOCK,
    LOG,
    NAMED,
    SALT,
    SALT_FIELDS,
    TEXTS,
    Tree,
    gathered,
    read_certificate,
    salt_seal,
    serialised,
    statement_digest,
    strict_json,
    tree,
)
from expunge.report.card import model_card
from expunge.report.html import render

if TYPE_CHECKING:
    from expunge.core.contracts import Reporter
    from expunge.remeasure import Measured

UNSIGNED = (
    "Unsigned: that the files belong together is shown, not who made them. Whoever can write to the folder can also "
    "make up figures with a certificate to match; --measure sees that."
)
OLDER = "The certificate is of an older form: its own bytes, the salt and the log are not checked."
NO_SALT = "Commitments are not checked: no salt.json."
TYPES: dict[str, type | tuple[type, ...]] = {
    "request": dict,
    "method": str,
    "described": (dict, str),
    "scores": list,
    "cost": dict,
    "environment": dict,
    "verdict": dict,
    "notes": list,
    "yields": str,
    "splits": dict,
}
"""What evidence must hold so that report, card and verdict can be made of it."""
PREDICATE_FIELDS = {"request", "method", "thresholds", "verdict", "environment", "cannot_prove", "forget"}
NEWER_FIELDS = {"inputs", "salt", "digest"}


@dataclass
class Verification:
    """What an auditor learns: the files that match and those that do not, each named; the verdict of the run.

    changed: also says in brackets what is wrong with a file whose digest matches. added: what a run does not leave.
    remarks: what could not be checked, in sentences.
    """

    matching: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    signature: str = "unsigned"
    passed: bool | None = None
    remarks: list[str] = field(default_factory=list)
    measured: Measured | None = None

    @property
    def differences(self) -> list[str]:
        """All that is not as certified, a line each."""
        lists = {"changed": self.changed, "missing": self.missing, "added": self.added}
        return [f"{word}: {name}" for word, names in lists.items() for name in names]

    @property
    def good(self) -> bool:
        measured = self.measured is None or not self.measured.differing
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
        """A file whose content is not what it must be."""
        self.changed.append(_line(f"{name} ({why})"))


def verify(
    path: str | Path,
    key: Path | None = None,
    *,
    measure: bool = False,
    trust_code: bool = False,
    reporter: Reporter | None = None,
) -> Verification:
    """Checks all that lies in a run's folder against its certificate, and the certificate against the evidence.

    path: the folder, or its certificate.json. With a key an unsigned certificate does not verify. measure: where all
    else is as certified, also read the model again and compare the figures; trust_code: the run's request may open its
    model with code of its own. Raises BadInput where there is no certificate, or nothing to measure with.
    """
    folder = _folder(Path(path))
    found = Verification(signature="unsigned" if key is None else "missing, and a key was given")
    if key is None:
        found.remarks.append(UNSIGNED)
    kind = _kind(folder / CERTIFICATE)
    if kind == "a link":
        found.added.append(f"{CERTIFICATE} (a link)")
        return found
    if kind == "no file":
        raise BadInput.of("certificate", str(folder / CERTIFICATE), "is no file", "give a run's certificate.json")
    statement, data = read_certificate(folder / CERTIFICATE)
    found.passed = statement["predicate"]["verdict"]["passed"]
    _files(found, folder, statement)
    _Content(found, folder, statement, data).check()
    if measure and found.differences:
        found.remarks.append("The model was not read: the folder is not as certified.")
    elif measure:
        from expunge.remeasure import measured  # opens models: most checks need none of that

        found.measured = measured(folder, statement, trust_code=trust_code, reporter=reporter)
    return found


def _folder(path: Path) -> Path:
    """The run's folder, given it or its certificate.json. Raises BadInput."""
    try:
        if path.is_dir():
            return path
        there = path.exists()
    except (OSError, ValueError):  # a name that no path can have
        there = False
    if path.name != CERTIFICATE:
        why = "is no certificate.json" if there else "does not exist"
        raise BadInput.of("certificate", str(path), why, "give a run's certificate.json")
    return path.parent


def _kind(path: Path) -> str:
    """What lies there, no link followed; "" for nothing."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return ""
    return "a link" if stat.S_ISLNK(mode) else "a file" if stat.S_ISREG(mode) else "no file"


# -- files -----------------------------------------------------------------------------------------


def _files(found: Verification, folder: Path, statement: Mapping[str, Any]) -> None:
    """Every file by its digest; what is missing; what lies there beside."""
    claimed: dict[str, str] = {}
    for item in statement["subject"]:
        name = item["name"]
        if not _is_name(name):
            found.fault(CERTIFICATE, f"names {name[:200]!r}, which no run holds")
        elif name in claimed:
            found.fault(CERTIFICATE, f"names {name} twice")
        else:
            claimed[name] = item["digest"]["sha256"]
    there = tree(folder)
    for name, value in claimed.items():
        if name not in there.files:
            found.missing.append(_line(name))
        elif _same(folder / name, value):
            found.matching.append(name)
        else:
            found.changed.append(name)
    predicate = statement["predicate"]
    needed = [name for name in NAMED if name != LOG or ("digest" in predicate and predicate.get("purged") is not True)]
    found.missing += [f"{name} (the certificate does not name it)" for name in needed if name not in claimed]
    if not any(name.endswith(".safetensors") and not name.startswith("model/guard/") for name in claimed):
        found.missing.append("model/*.safetensors (the certificate names no weights)")
    found.added += _added(there, {*claimed, CERTIFICATE, SALT}, folder, old="digest" not in predicate)


def _is_name(name: str) -> bool:
    """Can a run hold a file of this name: one way to write a place in model/, or one of our own."""
    if name in NAMED:
        return True
    pure = PurePosixPath(name)
    plain_name = name.isprintable() and "\\" not in name and pure.as_posix() == name
    return plain_name and len(pure.parts) > 1 and pure.parts[0] == "model" and ".." not in pure.parts


def _same(path: Path, value: str) -> bool:
    try:
        return digest_file(path) == value
    except OSError:
        return False


def _added(there: Tree, known: set[str], folder: Path, *, old: bool) -> list[str]:
    extra = {name: "" for name in there.files - known} | there.others
    if LOCK in extra and not extra[LOCK]:
        if (folder / LOCK).stat().st_size == 0:
            del extra[LOCK]
        else:
            extra[LOCK] = "not empty"
    if old and extra.get(LOG) == "":
        del extra[LOG]
    return [_line(f"{name} ({why})" if why else name) for name, why in sorted(extra.items())]


# -- contents --------------------------------------------------------------------------------------


class _Content:
    """What the files say, held against each other; only of files whose digests match."""

    def __init__(self, found: Verification, folder: Path, statement: dict[str, Any], data: bytes) -> None:
        self.found, self.folder, self.statement, self.data = found, folder, statement, data
        self.predicate: dict[str, Any] = statement["predicate"]
        self.matching = set(found.matching)
        self.newer = "digest" in self.predicate
        self.evidence: dict[str, Any] = {}

    def check(self) -> None:
        """All of it; each fault becomes an entry of `changed`."""
        self._try(CERTIFICATE, self._certificate)
        self._try(SALT, self._salt)
        for name in self.found.matching:
            if name.endswith(".safetensors"):
                self._try(name, lambda name=name: self._weights(name))  # type: ignore[misc]
        if "evidence.json" not in self.matching:
            return
        self._try("evidence.json", self._evidence)
        if not self.evidence:
            return
        self._try(CERTIFICATE, self._predicate)
        self._try("evidence.json", self._verdict)
        if "request.yaml" in self.matching:
            self._try("request.yaml", self._request)
        self._drawn("report.html", render)
        self._drawn("README.md", model_card)

    def _try(self, name: str, check: Callable[[], None]) -> None:
        """Whatever a hostile file makes a check raise is a fault of that file."""
        try:
            check()
        except BadInput as error:
            self.found.fault(name, "; ".join(error.faults)[:300])
        except (*BROKEN, SafetensorError) as error:
            self.found.fault(name, f"{type(error).__name__}: {str(error)[:200]}")

    def _certificate(self) -> None:
        if not self.newer:
            self.found.remarks.append(OLDER)
            return
        if set(self.statement) != {"_type", "subject", "predicateType", "predicate"}:
            self.found.fault(CERTIFICATE, "it has fields that no certificate has")
        if set(self.predicate) - {"purged"} != PREDICATE_FIELDS | NEWER_FIELDS:
            self.found.fault(CERTIFICATE, "its predicate has fields too many or too few")
        if any(
            set(item) != {"name", "digest"} or set(item["digest"]) != {"sha256"} for item in self.statement["subject"]
        ):
            self.found.fault(CERTIFICATE, "it names files with other digests")
        if self.data != serialised(self.statement):
            self.found.fault(CERTIFICATE, "its bytes are not those that its content is written with")
        if self.predicate["digest"] != statement_digest(self.statement):
            self.found.fault(CERTIFICATE, "its digest is not that of its content")

    def _salt(self) -> None:
        file = self.folder / SALT
        kind = _kind(file)
        if kind != "a file":  # anything else than nothing is named in `added`
            self.found.remarks += [NO_SALT] if self.newer and not kind else []
            return
        data = file.read_bytes()
        kept = strict_json(data)
        salt = bytes.fromhex(kept["salt"])
        if not self.newer:
            if "certificate" in kept:
                self.found.fault(CERTIFICATE, "it is of an older form than the salt that lies beside it")
            return
        if data != serialised(kept) or not {"salt", "certificate"} <= set(kept) <= SALT_FIELDS:
            self.found.fault(SALT, "its bytes are not those that its content is written with")
        if hashlib.sha256(salt).hexdigest() != self.predicate["salt"]:
            self.found.fault(SALT, "it is not the salt of this certificate")
        elif not hmac.compare_digest(salt_seal(self.statement, kept), kept["certificate"]):
            self.found.fault(SALT, "it does not seal this certificate")

    def _weights(self, name: str) -> None:
        """The header parses and all tensors lie within the file; no tensor is read."""
        with safe_open(str(self.folder / name), framework="np") as file:
            if not list(file.keys()) and name.count("/") == 1:
                self.found.fault(name, "it holds no weights")

    def _evidence(self) -> None:
        evidence = strict_json((self.folder / "evidence.json").read_bytes())
        if not isinstance(evidence, dict) or evidence.get("schema") != 1:
            raise ValueError("it is no evidence of schema 1")
        for name, kind in TYPES.items():
            if not isinstance(evidence.get(name), kind):
                raise ValueError(f"its {name} is missing or of another kind")
        if not all(type(count) is int for count in evidence["splits"].values()):
            raise ValueError("its splits are not numbers of examples")
        plain(evidence["request"], "evidence.request")
        gathered(evidence)
        self.evidence = evidence

    def _predicate(self) -> None:
        """What the certificate says besides digests is what the evidence says."""
        ours, forget = gathered(self.evidence), self.predicate["forget"]
        for name, value in ours.items():
            if canonical(self.predicate.get(name)) != canonical(value):
                self.found.fault(CERTIFICATE, f"its {name} is not the evidence's")
        count = self.evidence["splits"].get("forget")
        made = forget["commitments"]
        if (
            set(forget) != {"count", "commitments"}
            or canonical(forget["count"]) != canonical(count)
            or len(made) != count
        ):
            self.found.fault(CERTIFICATE, "its forget.count is not the evidence's")
        if made != sorted(made) or not all(_is_digest(one) for one in made):
            self.found.fault(CERTIFICATE, "its commitments are no digests in order")
        purged = not any(name in self.evidence for name in TEXTS)
        kept = all(name in self.evidence for name in TEXTS)
        if ("purged" in self.predicate and self.predicate["purged"] is not True) or not purged | kept:
            self.found.fault(CERTIFICATE, "whether the run was purged cannot be told")
        elif self.predicate.get("purged", False) is not purged:
            self.found.fault(CERTIFICATE, "its purged is not what the evidence shows")
        if self.newer:
            self._inputs()
        elif "code" in self.evidence["environment"] or "inputs" in self.evidence:
            self.found.fault(CERTIFICATE, "it is of an older form than the evidence")

    def _inputs(self) -> None:
        inputs, told = self.predicate["inputs"], self.evidence.get("inputs") or {}
        if set(inputs) != {"base", "gold", "splits"}:
            self.found.fault(CERTIFICATE, "its inputs have fields too many or too few")
        for name in ("base", "gold"):
            if canonical(inputs[name]) != canonical(told.get(name)):
                self.found.fault(CERTIFICATE, f"its inputs.{name} is not the evidence's")
        splits = inputs["splits"]
        counts = {name: one["count"] for name, one in splits.items()}
        if canonical(counts) != canonical(self.evidence["splits"]):
            self.found.fault(CERTIFICATE, "its inputs.splits are not the evidence's")
        if not all(set(one) == {"count", "commitment"} and _is_digest(one["commitment"]) for one in splits.values()):
            self.found.fault(CERTIFICATE, "its commitments to splits are no digests")
        if not _is_digest(self.predicate["salt"]):
            self.found.fault(CERTIFICATE, "its salt is no digest")

    def _verdict(self) -> None:
        """The verdict follows from the figures and the bar: it is come to again."""
        request, told = self.evidence["request"], self.evidence["verdict"]
        scores = [Score.of(score) for score in self.evidence["scores"]]
        purpose = request.get("purpose", "suppress")
        if purpose not in ("suppress", "erase"):
            raise ValueError("its purpose is unknown")
        guard = self.evidence["yields"] == "guard"
        ours = judged(request.get("accept") or {}, scores, purpose, guard=guard).to_json()
        if canonical(told) == canonical(ours):
            return
        if self._by_these("code") or _core(told) != _core(ours):
            self.found.fault("evidence.json", "its verdict is not what its figures give")
        else:
            self.found.remarks.append("The verdict's wording is compared in part: made by other versions.")

    def _request(self) -> None:
        values = plain(read_config(self.folder / "request.yaml", "request.yaml"), "request.yaml")
        if canonical(values) != canonical(self.evidence["request"]):
            self.found.fault("request.yaml", "it is not the evidence's request")

    def _drawn(self, name: str, draw: Callable[[dict[str, Any]], str]) -> None:
        """A page is a pure function of the evidence: it is drawn again."""
        if name not in self.matching:
            return
        try:
            same = draw(self.evidence).encode() == (self.folder / name).read_bytes()
        except Exception as error:  # evidence of someone else's making can make any part of a page fail
            self.found.fault(name, f"it cannot be drawn from this evidence: {type(error).__name__}")
            return
        if not same and self._by_these(*DRAWING_FIELDS):
            self.found.fault(name, "it is not what the evidence gives")
        elif not same:
            word = "report" if name == "report.html" else name
            self.found.remarks.append(f"{word} compared by digest: made by other versions.")

    def _by_these(self, *names: str) -> bool:
        """Was the run made by the versions that are running now."""
        here = versions()
        return all(self.evidence["environment"].get(name) == here[name] for name in names)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _core(verdict: Mapping[str, Any]) -> str:
    """What of a verdict no wording changes."""
    lines = [
        [line.get(name) for name in ("rule", "passed", "value", "bound")]
        for line in verdict["lines"]
        if not line.get("implied")
    ]
    return canonical([verdict["passed"], lines])
