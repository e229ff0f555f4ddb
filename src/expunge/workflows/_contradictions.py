"""Compares the files of a finished run with each other, and finds contradictions."""

from __future__ import annotations

import functools
import hashlib
import hmac
import math
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from expunge.core.errors import BadInput
from expunge.core.files import canonical
from expunge.core.request import plain, read_config
from expunge.core.version import DRAWING_FIELDS, versions
from expunge.evaluation.scores import Score
from expunge.ledger.certificate import (
    BROKEN,
    CERTIFICATE,
    POINTS,
    SALT,
    SALT_FIELDS,
    TEXTS,
    evidence_predicate,
    salt_seal,
    serialise,
    statement_digest,
    strict_json,
)
from expunge.ledger.evidence import SECOND_GOLD, Evidence
from expunge.ledger.examples import BESIDE, EXAMPLES, read_examples
from expunge.methods.facts import faults_of_sheets, is_last_model, signers_of
from expunge.pipeline.hidden_knowledge import judge
from expunge.report.card import model_card
from expunge.report.html import render
from expunge.workflows._figures import repeated_scores

if TYPE_CHECKING:
    from expunge.workflows.verify import Verification

OLDER = "The certificate is of an older form: its own bytes, the salt and the log are not checked."
CLAIMS = "Claims of clients {} go with the keys that the evidence names; --parties compares these with yours."
NO_SALT = "Commitments are not checked: no salt.json."
RUN_FIELDS = ("method", "described", "yields")
"""Fields of a run's evidence that report, card and verdict need, and that other verbs do not have."""
PREDICATE_FIELDS = {"request", "method", "thresholds", "verdict", "environment", "cannot_prove", "forget"}
NEWER_FIELDS = {"inputs", "salt", "digest"}


def file_kind(path: Path) -> str:
    """The kind of a path, no link followed: a link, a file, no file, or "" where nothing is there."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return ""
    return "a link" if stat.S_ISLNK(mode) else "a file" if stat.S_ISREG(mode) else "no file"


class Contents:
    """The contents of the files whose digests match, checked against each other."""

    def __init__(
        self, found: Verification, folder: Path, statement: dict[str, Any], data: bytes, keys: Mapping[str, str]
    ) -> None:
        self.found, self.folder, self.statement, self.data, self.keys = found, folder, statement, data, keys
        self.predicate: dict[str, Any] = statement["predicate"]
        self.matching = set(found.matching)
        self.newer = "digest" in self.predicate
        self.evidence: dict[str, Any] = {}
        self.examples: dict[str, Any] = {}

    def check(self) -> None:
        """Make all checks; each fault becomes an entry of `changed`."""
        self._try(CERTIFICATE, self._certificate)
        self._try(SALT, self._salt)
        for name in self.found.matching:
            if name.endswith(".safetensors"):
                self._try(name, functools.partial(self._weights, name))
        if "evidence.json" not in self.matching:
            return
        self._try("evidence.json", self._evidence)
        if not self.evidence:
            return
        self._try(CERTIFICATE, self._predicate)
        self._try("evidence.json", self._verdict)
        self._try("evidence.json", self._rounds)
        if "request.yaml" in self.matching:
            self._try("request.yaml", self._request)
        if EXAMPLES in self.matching:
            self._try(EXAMPLES, self._examples)
        if self.examples or self.predicate.get("purged") is True:
            self._draw_again("report.html", render)
        self._draw_again("README.md", model_card)

    def _try(self, name: str, check: Callable[[], None]) -> None:
        """Run one check; any error that a hostile file causes is a fault of that file."""
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
        if set(self.predicate) - {"purged", "guarantee"} != PREDICATE_FIELDS | NEWER_FIELDS:
            self.found.fault(CERTIFICATE, "its predicate has fields too many or too few")
        if any(
            set(item) != {"name", "digest"} or set(item["digest"]) != {"sha256"} for item in self.statement["subject"]
        ):
            self.found.fault(CERTIFICATE, "it names files with other digests")
        if self.data != serialise(self.statement):
            self.found.fault(CERTIFICATE, "its bytes are not those that its content is written with")
        if self.predicate["digest"] != statement_digest(self.statement):
            self.found.fault(CERTIFICATE, "its digest is not that of its content")

    def _salt(self) -> None:
        file = self.folder / SALT
        kind = file_kind(file)
        if kind != "a file":  # anything else than nothing is named in `added`
            self.found.remarks += [NO_SALT] if self.newer and not kind else []
            return
        data = file.read_bytes()
        kept = strict_json(data)
        salt = bytes.fromhex(kept["salt"])
        if not self.newer:
            if "certificate" in kept:
                self.found.fault(CERTIFICATE, "it is of an older form than the salt beside it")
            return
        if data != serialise(kept) or not {"salt", "certificate"} <= set(kept) <= SALT_FIELDS:
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
        Evidence.parse(evidence)
        if lacking := [name for name in RUN_FIELDS if name not in evidence]:
            raise ValueError(f"its {lacking[0]} is missing")
        if any(name in evidence for name in BESIDE):
            raise ValueError(f"it holds values of single examples, which belong in {EXAMPLES}")
        plain(evidence["request"], "evidence.request")
        if again := repeated_scores(evidence["scores"]):
            raise ValueError(f"a figure is there twice: {', '.join(again)}")
        evidence_predicate(evidence)
        self.evidence = evidence

    def _predicate(self) -> None:
        """Check that the certificate repeats the evidence wherever it is not about digests."""
        ours, forget = {"guarantee": None, **evidence_predicate(self.evidence)}, self.predicate["forget"]
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
        beside = any(item["name"] == EXAMPLES for item in self.statement["subject"])
        purged = not beside and not any(name in self.evidence for name in (*TEXTS, *POINTS))
        kept = beside and all(name in self.evidence for name in TEXTS)
        if ("purged" in self.predicate and self.predicate["purged"] is not True) or not purged | kept:
            self.found.fault(CERTIFICATE, "whether the run was purged is unclear")
        elif self.predicate.get("purged", False) is not purged:
            self.found.fault(CERTIFICATE, "its purged is not what the evidence shows")
        if self.newer:
            self._inputs()
        elif "code" in self.evidence["environment"] or "inputs" in self.evidence:
            self.found.fault(CERTIFICATE, "it is of an older form than the evidence")

    def _inputs(self) -> None:
        inputs, certified = self.predicate["inputs"], self.evidence.get("inputs") or {}
        optional = {"files", SECOND_GOLD}
        if set(inputs) - optional != {"base", "gold", "splits"}:
            self.found.fault(CERTIFICATE, "its inputs have fields too many or too few")
        for name in ("base", "gold", *(optional & {*inputs, *certified})):
            if canonical(inputs.get(name)) != canonical(certified.get(name)):
                self.found.fault(CERTIFICATE, f"its inputs.{name} is not the evidence's")
        splits = inputs["splits"]
        counts = {name: one["count"] for name, one in splits.items()}
        if canonical(counts) != canonical(self.evidence["splits"]):
            self.found.fault(CERTIFICATE, "its inputs.splits are not the evidence's")
        if not all(set(one) == {"count", "commitment"} and _is_digest(one["commitment"]) for one in splits.values()):
            self.found.fault(CERTIFICATE, "its commitments to splits are no digests")
        if not _is_digest(self.predicate["salt"]):
            self.found.fault(CERTIFICATE, "its salt is not a digest")

    def _rounds(self) -> None:
        """Check that a federation's rounds follow from one another, and that the last one's model is the run's."""
        stages = (self.evidence.get("rounds") or {}).get("stages") or []
        for why in faults_of_sheets(stages, self.keys):
            self.found.fault("evidence.json", why)
        if unknown := sorted(signers_of(stages) - set(self.keys)):
            self.found.remarks.append(CLAIMS.format(", ".join(unknown)))
        departed = [stage for stage in stages if stage["name"] == "departure"]
        if not departed or any(name.startswith("model/") for name in (*self.found.changed, *self.found.missing)):
            return
        try:
            same = is_last_model(departed, self.folder / "model")
        except BadInput as error:
            self.found.remarks.append(f"The model was not compared with the last round's: {error.faults[0]}")
            return
        if not same:
            self.found.fault("evidence.json", "the model is not that of the departure's last round")

    def _verdict(self) -> None:
        """Check that the verdict follows from the figures and the criteria."""
        request, certified = self.evidence["request"], self.evidence["verdict"]
        scores = [Score.of(score) for score in self.evidence["scores"]]
        purpose = request.get("purpose", "suppress")
        if purpose not in ("suppress", "erase"):
            raise ValueError("its purpose is unknown")
        guard = self.evidence["yields"] == "guard"
        ours = judge(request.get("accept") or {}, scores, purpose, guard=guard).to_json()
        if self.evidence["schema"] == 1:
            for line in ours["lines"]:
                del line["word"]
        if canonical(certified) == canonical(ours):
            return
        if self._by_these("code") or _core(certified) != _core(ours):
            self.found.fault("evidence.json", "its verdict is not what its figures give")
        else:
            self.found.remarks.append("The verdict's wording is compared in part: made by other versions.")

    def _examples(self) -> None:
        """Check that the values of single examples have the means that the scores give."""
        found = read_examples(self.folder / EXAMPLES)
        scores = {(score["name"], score["split"], score["subject"]): score for score in self.evidence["scores"]}
        for split, roles in found["distributions"].items():
            for role, values in roles.items():
                score = scores.get((f"{split}_nll", split, role))
                counted = [value for value in values if value is not None]
                if score is None or score["value"] is None or score["n"] != len(counted):
                    continue
                if not math.isclose(sum(counted) / len(counted), score["value"], rel_tol=1e-6, abs_tol=1e-6):
                    self.found.fault(EXAMPLES, f"its values have another mean than {split}_nll of {role}")
        self.examples = found

    def _request(self) -> None:
        values = plain(read_config(self.folder / "request.yaml", "request.yaml"), "request.yaml")
        if canonical(values) != canonical(self.evidence["request"]):
            self.found.fault("request.yaml", "it is not the evidence's request")

    def _draw_again(self, name: str, draw: Callable[[dict[str, Any]], str]) -> None:
        """Draw a page again: it is a pure function of the evidence."""
        if name not in self.matching:
            return
        try:
            same = draw({**self.evidence, **self.examples}).encode() == (self.folder / name).read_bytes()
        except Exception as error:  # evidence of someone else's making can make any part of a page fail
            self.found.fault(name, f"it cannot be drawn from this evidence: {type(error).__name__}")
            return
        if not same and self._by_these(*DRAWING_FIELDS):
            self.found.fault(name, "it is not what the evidence gives")
        elif not same:
            word = "report" if name == "report.html" else name
            self.found.remarks.append(f"{word} compared by digest: made by other versions.")

    def _by_these(self, *names: str) -> bool:
        """True where the run was made by the versions that are running now."""
        here = versions()
        return all(self.evidence["environment"].get(name) == here[name] for name in names)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _core(verdict: Mapping[str, Any]) -> str:
    """The parts of a verdict that no change of wording touches."""
    lines = [
        [line.get(name) for name in ("rule", "passed", "value", "bound")]
        for line in verdict["lines"]
        if not line.get("implied")
    ]
    return canonical([verdict["passed"], lines])
