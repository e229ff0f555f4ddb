"""A finished run's model, read again: are the figures of its evidence those that the model gives."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.alignment import asking, risk
from expunge.core.contracts import Reporter, Silent, Subject
from expunge.core.errors import BadInput, one_line
from expunge.core.files import canonical, read_json
from expunge.core.request import Request, plain, read_config
from expunge.evaluation import attack as attacking
from expunge.evaluation import scores as scoring
from expunge.evaluation.scores import Score
from expunge.ledger.certificate import SALT, commitment, commitments, imprint, read_salt
from expunge.models.manifest import MANIFEST
from expunge.models.open import check, open_model
from expunge.pipeline import containment, observe
from expunge.pipeline import evidence as dossier
from expunge.pipeline.gold import gold_folder
from expunge.pipeline.plan import Plan, plan

REDACTED = (" examples given in the request, redacted", "a selector, redacted")
UNSETTLED = ("seconds", "bytes")
"""Units of figures that differ from one reading to the next."""


@dataclass
class Measured:
    """What reading again came to. equal: figures had to be equal, not within their intervals.

    differing: what is not as certified, in words; remarks: what could not be compared.
    """

    equal: bool
    compared: int = 0
    differing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """For the terminal."""
        how = "equal" if self.equal else "within their intervals (other versions or another machine)"
        said = f"{self.compared} figures measured again" + ("" if self.differing else f", {how}") + "."
        return [*(f"differs: {text}" for text in self.differing), *self.remarks, said]

    def to_json(self) -> dict[str, Any]:
        return {
            "equal": self.equal,
            "compared": self.compared,
            "differing": self.differing,
            "remarks": self.remarks,
        }


def measured(
    folder: Path, statement: Mapping[str, Any], *, trust_code: bool = False, reporter: Reporter | None = None
) -> Measured:
    """Reads the model of a run that verifies, and those that it is held against as far as they are there.

    No cache is believed. Raises BadInput where the data or the model cannot be read.
    """
    evidence = read_json(folder / "evidence.json")
    found = Measured(canonical(evidence["environment"]) == canonical(dossier.environment()))
    with tempfile.TemporaryDirectory() as scratch:
        again = _Again(folder, evidence, trust_code, reporter or Silent(), Path(scratch), found)
        again.open()
        again.same_data(statement)
        if not found.differing:
            _compare(evidence, again.scores(), again, found)
    return found


class _Again:
    """The run's readings, made once more from its request."""

    def __init__(
        self,
        folder: Path,
        evidence: dict[str, Any],
        trust_code: bool,
        reporter: Reporter,
        scratch: Path,
        found: Measured,
    ) -> None:
        self.folder, self.evidence, self.reporter, self.scratch, self.found = folder, evidence, reporter, scratch, found
        self.trust_code = trust_code
        self.request = _request(folder, trust_code)
        self.level = self.request.audit
        self.plan: Plan
        self.base: Subject | None = None
        self.gold: Subject | None = None

    @property
    def lost(self) -> list[str]:
        """Subjects of the evidence that are not there to be read."""
        told = {score["subject"] for score in self.evidence["scores"]}
        there = {"before": self.base, "gold": self.gold}
        return [who for who, subject in there.items() if who in told and subject is None]

    def open(self) -> None:
        """Data, base and gold, the two last as far as they can be reached and are those of the run."""
        self.plan, why = self._planned()
        inputs = self.evidence.get("inputs") or {}
        self.base = None if why else self._opened(self.plan.source, "base", inputs.get("base"))
        if why:
            self.found.remarks.append(f"The base is not compared: {why}")
        if "gold" in {score["subject"] for score in self.evidence["scores"]}:
            place = self.plan.gold
            if place == "train":
                place = str(gold_folder(self.plan.manifest or {}, self.plan.splits["forget"]))
            if (place and (Path(place) / MANIFEST).is_file()) or self.request.gold not in ("auto", "none"):
                self.gold = self._opened(place or self.request.gold, "gold", inputs.get("gold"))
            else:
                self.found.remarks.append("Gold is not compared: it is no longer kept.")
        self._prepare()
        if self.lost and self.level != "none":
            self.level = "none"
            self.found.remarks.append(f"Attacks are not made again: they need {' and '.join(self.lost)}.")

    def _planned(self) -> tuple[Plan, str]:
        """The plan of the request, and why its base cannot be reached; without base and gold where need be."""
        ways: list[dict[str, Any]] = [{}, {"gold": "none"}, {"gold": "none", "model": str(self.folder / "model")}]
        first: BadInput | None = None
        for way in ways:
            try:
                made = plan(self.request.model_copy(update={**way, "out": str(self.scratch / "out")}))
                check(made.source, self.trust_code)
                return made, one_line(str(first)) if "model" in way else ""
            except BadInput as error:
                first = first or error
        assert first is not None
        raise BadInput.of(
            "--measure", "", f"needs what the request names ({first})", "put it where the request names it"
        )

    def _opened(self, source: Any, who: str, told: str | None) -> Subject | None:
        try:
            subject = open_model(source, self.trust_code)
        except BadInput as error:
            self.found.remarks.append(f"The {who} is not compared: {one_line(str(error))}")
            return None
        if told is None:
            self.found.remarks.append(f"The evidence names no {who}: that it is the run's is not shown.")
        elif imprint(subject.fingerprint()) != told:
            self.found.differing.append(
                f"{who}: the model at {one_line(str(source))} is not the one that the run started from"
            )
        return subject

    def _prepare(self) -> None:
        """Retain data that the run itself added; they are made with the base."""
        wanted = self.plan.aligned
        if wanted is None or not (wanted.target or wanted.contain):
            return
        if self.base is None:
            raise BadInput.of(
                "--measure",
                "",
                "needs the base, by which this run's data were completed",
                "put it where the request names it",
            )
        risky = None
        if wanted.auto:
            spent = open_model(self.plan.source, self.trust_code)
            risky = risk.at_risk(containment.risks(self.plan, spent, self.reporter))
        self.plan.splits, _ = asking.prepared(wanted, self.base, self.plan.splits, risky, self.reporter)

    def same_data(self, statement: Mapping[str, Any]) -> None:
        """Are the examples those that the certificate commits to; without the salt, as many."""
        predicate, counts = statement["predicate"], self.evidence["splits"]
        told = predicate.get("inputs", {}).get("splits", {})
        salt = bytes.fromhex(read_salt(self.folder)["salt"]) if (self.folder / SALT).is_file() else None
        for name in sorted({*counts, *self.plan.splits}):
            rows = self.plan.splits.get(name, [])
            other = salt and name in told and commitment(rows, salt) != told[name]["commitment"]
            each = salt and name == "forget" and commitments(rows, salt) != predicate["forget"]["commitments"]
            if len(rows) != counts.get(name) or other or each:
                self.found.differing.append(f"data: {name} holds other examples than those that the run started from")

    def scores(self) -> list[Score]:
        """All figures of all subjects that are there; attacks too where the run was audited."""
        rows, seed = observe.reading_splits(self.plan), self.plan.request.seed
        reads: dict[str, observe.Read] = {}
        after = open_model(str(self.folder / "model"), self.trust_code)
        with _no_cache(self.scratch / "cache"):
            for who, subject in (("before", self.base), ("gold", self.gold), ("after", after)):
                if subject is None:
                    continue
                level = "none" if who == "after" else self.level
                reads[who] = observe.read_into(subject, rows, who, self.reporter, level)
                if who != "before":
                    observe.attack(subject, rows, reads, who, self.level, self.plan.manifest, seed, self.reporter)
            return dossier.measured(reads, self.plan.capabilities, self.level)

    def able(self) -> set[str]:
        """The names of the scores that can be had with what is there."""
        given, gold = observe.reading_splits(self.plan), self.gold is not None
        names = scoring.score_names(self.plan.capabilities, given, gold, self.base is not None)
        return {*names, *attacking.score_names(self.level, self.plan.capabilities, given, gold)}


def _request(folder: Path, trust_code: bool) -> Request:
    """The stored request, as far as reading goes: with no bar, and with the caller's leave to run code, not its own."""
    values = plain(read_config(folder / "request.yaml", "request.yaml"), "request.yaml")
    gone = sorted(name for name, value in values.items() if _is_redacted(value))
    if gone:
        raise BadInput.of(
            "--measure",
            ", ".join(gone),
            "stand redacted in request.yaml, so the data cannot be read",
            "verify without --measure",
        )
    if values.get("trust_code") and not trust_code:
        raise BadInput.of(
            "--measure", "", "opens a model that brings code of its own", "add --trust-code where you trust the run"
        )
    budget = {**(values.get("budget") or {}), "memory": 1e9}  # nothing is trained: it need not fit
    kept = {name: value for name, value in values.items() if name not in ("accept", "judge")}
    if isinstance(kept.get("contain"), list):
        kept["contain"] = kept["contain"][0]  # the run's own count; the others were run beside it
    return Request.parse(
        {
            **kept,
            "alignment": "none",
            "budget": budget,
            "trust_code": trust_code,
            **({} if _needs_pack(kept) else {"domains": None}),
        }
    )


def _needs_pack(values: Mapping[str, Any]) -> bool:
    forget = values.get("forget")
    return values.get("contain", "none") != "none" or (isinstance(forget, Mapping) and "refusals" in forget)


def _is_redacted(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_redacted, value.values()))
    if isinstance(value, list):
        return any(map(_is_redacted, value))
    return isinstance(value, str) and value.endswith(REDACTED)


@contextlib.contextmanager
def _no_cache(empty: Path) -> Iterator[None]:
    """Readings and attacks look for what was kept in a folder that holds nothing."""
    before = os.environ.get("EXPUNGE_CACHE")
    os.environ["EXPUNGE_CACHE"] = str(empty)
    try:
        yield
    finally:
        if before is None:
            del os.environ["EXPUNGE_CACHE"]
        else:
            os.environ["EXPUNGE_CACHE"] = before


# -- figures ---------------------------------------------------------------------------------------


def _compare(evidence: Mapping[str, Any], scores: list[Score], again: _Again, found: Measured) -> None:
    """Each figure of the evidence against the one just had, and the other way round."""
    told = {_key(score): score for score in map(Score.of, evidence["scores"])}
    ours = {_key(score): score for score in map(Score.of, (score.to_json() for score in scores))}
    able, left = again.able(), set()
    for key, score in told.items():
        name, split, who = key
        if who in again.lost or not {name, f"{name}.{split}"} & able:
            left |= {name} if score.measured else set()
        elif score.unit not in UNSETTLED:
            said = _differs(score, ours.get(key), found.equal)
            found.compared += said is not None
            found.differing += [f"{name} ({who}, {split}): {said}"] if said else []
    if found.equal:
        new = [key for key in ours if key not in told and ours[key].measured]
        found.differing += [
            f"{name} ({who}, {split}): measured now, absent from the evidence" for name, split, who in new
        ]
    if left:
        found.remarks.append(f"Not measured again: {', '.join(sorted(left))}.")


def _key(score: Score) -> tuple[str, str, str]:
    return score.name, score.split, score.subject


def _differs(told: Score, ours: Score | None, equal: bool) -> str | None:
    """What differs, "" where nothing does; None where there is nothing to compare."""
    if not told.measured:
        new = ours is not None and ours.measured and equal
        return f"certified as not measured, now {_figure(ours)}" if new and ours else None
    if ours is None or not ours.measured:
        return f"certified {_figure(told)}, now not measured" + (f" ({ours.why})" if ours else "")
    if equal:
        same = (told.value, told.low, told.high, told.n) == (ours.value, ours.low, ours.high, ours.n)
    elif told.low is None or told.high is None:
        return None
    else:
        assert ours.value is not None
        same = told.low <= ours.value <= told.high
    return "" if same else f"certified {_figure(told)}, now {_figure(ours)}"


def _figure(score: Score) -> str:
    between = "" if score.low is None or score.high is None else f" [{score.low:.6g}, {score.high:.6g}]"
    return f"{score.value:.6g}{between}, n {score.n}"
