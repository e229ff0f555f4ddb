"""A finished run's model, read again: are the figures of its evidence those that the model gives."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.alignment import asking, evidencing, risk
from expunge.core.contracts import Model, Reporter, Silent
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
from expunge.workflows import _figures as figures

REDACTED = (" examples given in the request, redacted", "a selector, redacted")


@dataclass
class Measured:
    """What reading again came to. equal: figures had to be equal, not within their intervals.

    differing: what is not as certified, in words; remarks: what could not be compared; resting: the verdict's lines
    that rest on such figures.
    """

    equal: bool
    compared: int = 0
    differing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    resting: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Are the figures those of the model, all of those on which the verdict rests."""
        return self.compared > 0 and not self.differing and not self.resting

    @property
    def lines(self) -> list[str]:
        """For the terminal."""
        how = ", equal" if self.equal else ", within their intervals (other versions or another machine)"
        said = f"{self.compared or 'No'} figures measured again{'' if self.differing or not self.compared else how}."
        open_ = [f"not shown: {rule} rests on figures that were not measured again" for rule in self.resting]
        return [*(f"differs: {text}" for text in self.differing), *open_, *self.remarks, said]

    def to_json(self) -> dict[str, Any]:
        return {
            "equal": self.equal,
            "compared": self.compared,
            "differing": self.differing,
            "remarks": self.remarks,
            "resting": self.resting,
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
        again.same_method()
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
        self.drift = evidence["request"].get("alignment", "none") != "none"
        """Were the domains' prompts put to the models."""
        self.plan: Plan
        self.base: Model | None = None
        self.gold: Model | None = None

    @property
    def lost(self) -> list[str]:
        """Models of the evidence that are not there to be read."""
        told = {score["subject"] for score in self.evidence["scores"]}
        there = {"before": self.base, "gold": self.gold}
        return [role for role, model in there.items() if role in told and model is None]

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
            elif self.request.gold == "none":
                self.found.differing.append("gold: the evidence has figures of it, and the request asks for none")
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

    def _opened(self, source: Any, role: str, told: str | None) -> Model | None:
        try:
            model = open_model(source, self.trust_code)
        except BadInput as error:
            self.found.remarks.append(f"The {role} is not compared: {one_line(str(error))}")
            return None
        if told is None:
            self.found.remarks.append(f"The evidence names no {role}: that it is the run's is not shown.")
        elif imprint(model.fingerprint()) != told:
            self.found.differing.append(
                f"{role}: the model at {one_line(str(source))} is not the one that the run started from"
            )
        return model

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

    def same_method(self) -> None:
        """Is the method the request's: whether the weights are as they were decides a line of the verdict."""
        composed, told = self.plan.composed, self.evidence
        if told["yields"] != composed.yields:
            self.found.differing.append(
                f"method: certified as yielding {one_line(told['yields'])}, the request's yields {composed.yields}"
            )
        elif told["method"] != composed.name or (
            self.found.equal and canonical(told["described"]) != canonical(composed.described)
        ):
            self.found.differing.append("method: it is not the request's")

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
        """All figures of all models that are there; attacks too where the run was audited."""
        rows, seed = observe.reading_splits(self.plan), self.plan.request.seed
        reads: dict[str, observe.Read] = {}
        after = open_model(str(self.folder / "model"), self.trust_code)
        with _no_cache(self.scratch / "cache"):
            for role, model in (("before", self.base), ("gold", self.gold), ("after", after)):
                if model is None:
                    continue
                level = "none" if role == "after" else self.level
                reads[role] = observe.read_into(model, rows, role, self.reporter, level)
                if role != "before":
                    observe.attack(model, rows, reads, role, self.level, self.plan.manifest, seed, self.reporter)
            return dossier.all_scores(reads, self.plan.capabilities, self.level)

    def lost_names(self) -> set[str]:
        """The names of the scores that the run could have, and that cannot be had with what is left."""
        gold = "gold" in {score["subject"] for score in self.evidence["scores"]}
        whole = self._names(self.request.audit, gold=gold, base=True)
        return whole - self._names(self.level, gold=self.gold is not None, base=self.base is not None)

    def _names(self, level: str, *, gold: bool, base: bool) -> set[str]:
        given, capabilities = observe.reading_splits(self.plan), self.plan.capabilities
        names = scoring.score_names(capabilities, given, gold, base)
        return {*names, *attacking.score_names(level, capabilities, given, gold)}

    def excused(self, score: Score, lost: set[str]) -> bool:
        """Is it clear why the figure cannot be had again: what it is read of is lost, or answers are not asked for."""
        if self.drift and score.side == "alignment" and score.name in evidencing.NAMES and score.role != "gold":
            return True
        if score.role not in scoring.ROLES or not self.lost:
            return False
        return score.role in self.lost or not score.measured or bool({score.name, f"{score.name}.{score.split}"} & lost)


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
    """Each figure of the evidence against the one just had, and the other way round; then the verdict."""
    told, ours = figures.table(evidence["scores"]), figures.table(score.to_json() for score in scores)
    lost, unshown = again.lost_names(), set()
    for key, score in told.items():
        mine = ours.get(key)
        if (mine is None or not mine.measured) and again.excused(score, lost):
            unshown |= {key} if score.measured else set()
        elif mine is None:
            found.differing.append(f"{figures.title(key)}: in the evidence, but no figure that this request gives")
        else:
            said = figures.difference(score, mine, equal=found.equal, reasons=not again.lost)
            found.differing += [f"{figures.title(key)}: {said}"] if said else []
            if not figures.is_comparable(mine, equal=found.equal):
                unshown.add(key)
            elif mine.measured:
                found.compared += 1
    absent = [key for key in ours if key not in told and (ours[key].measured or (found.equal and not again.lost))]
    found.differing += [f"{figures.title(key)}: of this request, but absent from the evidence" for key in absent]
    if again.drift and ("alignment_drift", "after") not in {(name, role) for name, _, role in told}:
        found.differing.append("alignment_drift (after): of this request, but absent from the evidence")
    found.differing += figures.reordered_scores(told, ours)
    if unshown:
        found.remarks.append(f"Not measured again: {', '.join(sorted({name for name, _, _ in unshown}))}.")
    if not found.equal:
        found.differing += figures.turned_checks(evidence, told, ours)
    found.resting = figures.resting_checks(evidence, told, unshown)
