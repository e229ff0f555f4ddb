"""A finished run's model, read again, and the figures of its evidence compared with those that it gives."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from expunge.alignment import risk
from expunge.alignment.evidence import SCORES_FROM_ANSWERS
from expunge.alignment.training_data import prepare_splits
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, one_line
from expunge.core.files import canonical, read_json
from expunge.core.request import Request, plain, read_config
from expunge.evaluation import attack, scores
from expunge.evaluation.scores import Score
from expunge.ledger.certificate import SALT, commitment, commitments, imprint, read_salt
from expunge.ledger.evidence import SECOND_GOLD
from expunge.models.manifest import MANIFEST, manifest_of
from expunge.models.open import check, open_model
from expunge.pipeline import containment
from expunge.pipeline.clients import parties_in
from expunge.pipeline.comparison import all_scores
from expunge.pipeline.evidence import environment
from expunge.pipeline.fluency import read_answers
from expunge.pipeline.gold import RETRAINED, gold_folder, second_manifest
from expunge.pipeline.gold_check import Origin, refuse_gold
from expunge.pipeline.observation_spec import ObservationSpec, reading_splits
from expunge.pipeline.observe import Observation, check_gold, observe, refuse_copies
from expunge.pipeline.partition import remarks
from expunge.pipeline.plan import Plan, plan
from expunge.workflows import _figures as figures

GOLDS = ("gold", SECOND_GOLD)
REDACTED = (" examples given in the request, redacted", "a selector, redacted")


@dataclass
class Measured:
    """The outcome of reading again. equal: figures had to be equal, not within their intervals.

    differing: differences from what is certified, in words; remarks: figures that could not be compared; resting: the
    lines of the verdict that rest on such figures.
    """

    equal: bool
    compared: int = 0
    differing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    resting: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether the figures are those of the model, all of those on which the verdict rests among them."""
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


def remeasure(
    folder: Path, statement: Mapping[str, Any], *, trust_code: bool = False, reporter: Reporter | None = None
) -> Measured:
    """Read the model of a run that verifies, and those that it is compared with as far as they are there.

    No cache is trusted. Raises BadInput where the data or the model cannot be read.
    """
    evidence = read_json(folder / "evidence.json")
    result = Measured(canonical(evidence["environment"]) == canonical(environment()))
    with tempfile.TemporaryDirectory() as scratch:
        again = _Again(folder, evidence, trust_code, reporter or Silent(), Path(scratch), result)
        again.open()
        again.same_method()
        again.same_data(statement)
        if not result.differing:
            _compare(evidence, again.scores(), again, result)
    return result


class _Again:
    """The run's readings, made once more from its request."""

    def __init__(
        self,
        folder: Path,
        evidence: dict[str, Any],
        trust_code: bool,
        reporter: Reporter,
        scratch: Path,
        result: Measured,
    ) -> None:
        self.folder, self.evidence, self.reporter, self.scratch, self.result = (
            folder,
            evidence,
            reporter,
            scratch,
            result,
        )
        self.trust_code = trust_code
        self.request = _request(folder, trust_code)
        self.level = self.request.audit
        self.drift = evidence["request"].get("alignment", "none") != "none"
        """Whether the models answered the domains' prompts."""
        self.plan: Plan
        self.base: Model | None = None
        self.golds: dict[str, tuple[Model, Origin]] = {}
        """Role -> gold model that is there, and what is known of its training."""

    @property
    def lost(self) -> list[str]:
        """Models of the evidence that are not there to be read."""
        certified = {score["subject"] for score in self.evidence["scores"]}
        there = {*self.golds, *(["before"] if self.base is not None else [])}
        return [role for role in ("before", *GOLDS) if role in certified and role not in there]

    def open(self) -> None:
        """Data, base and gold, the two last as far as they can be reached and are those of the run."""
        self.plan, why = self._plan_again()
        inputs = self.evidence.get("inputs") or {}
        self.base = None if why else self._open_model(self.plan.source, "base", inputs.get("base"))
        if why:
            self.result.remarks.append(f"The base is not compared: {why}")
        for role in GOLDS:
            if role in {score["subject"] for score in self.evidence["scores"]}:
                self._open_gold(role, inputs.get(role))
        self._prepare()
        needed = [role for role in self.lost if role != SECOND_GOLD]
        if needed and self.level != "none":
            self.level = "none"
            self.result.remarks.append(f"Attacks are not made again: they need {' and '.join(needed)}.")

    def _open_gold(self, role: str, certified: str | None) -> None:
        """A gold model of the evidence, from where it was given or from the cache."""
        name, given = role.replace("_", " "), self.request.gold
        if given == "none":
            self.result.differing.append(f"{name}: the evidence has figures of it, and the request asks for none")
            return
        folders = [given] if isinstance(given, str) else given
        place = folders[GOLDS.index(role)] if GOLDS.index(role) < len(folders) else ""
        retrained = given in RETRAINED
        if retrained:
            place = str(self._gold_place(role, self.plan.manifest)) if self.plan.manifest else ""
        if not place or (retrained and not (Path(place) / MANIFEST).is_file()):
            self.result.remarks.append(f"{name.capitalize()} is not compared: it is no longer kept.")
        elif (model := self._open_model(place, name, certified)) is not None:
            origin = Origin.of(manifest_of(place), self.plan.splits["forget"], retrained=retrained)
            self.golds[role] = model, origin

    def _gold_place(self, role: str, manifest: dict[str, Any]) -> Path:
        """The place of a retrained gold model in the cache."""
        return gold_folder(second_manifest(manifest) if role == SECOND_GOLD else manifest, self.plan.splits["forget"])

    def _plan_again(self) -> tuple[Plan, str]:
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

    def _open_model(self, source: Any, role: str, certified: str | None) -> Model | None:
        try:
            model = open_model(source, self.trust_code)
        except BadInput as error:
            self.result.remarks.append(f"The {role} is not compared: {one_line(str(error))}")
            return None
        if certified is None:
            self.result.remarks.append(f"The evidence names no {role}: that it is the run's is not shown.")
        elif imprint(model.fingerprint()) != certified:
            self.result.differing.append(
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
        splits, _ = prepare_splits(wanted, self.base, self.plan.splits, risky, self.reporter)
        self.plan = replace(self.plan, splits=splits)

    def same_method(self) -> None:
        """Compare the method with the request's: whether the weights are as they were decides a line of the verdict."""
        certified = self.evidence
        tried = [rung.composed for rung in self.plan.rungs] or [self.plan.composed]
        composed = next((one for one in tried if one.described == certified["described"]), self.plan.composed)
        if certified["yields"] != composed.yields:
            self.result.differing.append(
                f"method: certified as yielding {one_line(certified['yields'])}, the request's yields {composed.yields}"
            )
        elif certified["method"] != composed.name or (
            self.result.equal and canonical(certified["described"]) != canonical(composed.described)
        ):
            self.result.differing.append("method: it is not the request's")

    def same_data(self, statement: Mapping[str, Any]) -> None:
        """Compare the examples with those that the certificate commits to; without the salt, their number."""
        predicate, counts = statement["predicate"], self.evidence["splits"]
        certified = predicate.get("inputs", {}).get("splits", {})
        salt = bytes.fromhex(read_salt(self.folder)["salt"]) if (self.folder / SALT).is_file() else None
        for name in sorted({*counts, *self.plan.splits}):
            rows = self.plan.splits.get(name, [])
            other = salt and name in certified and commitment(rows, salt) != certified[name]["commitment"]
            each = salt and name == "forget" and commitments(rows, salt) != predicate["forget"]["commitments"]
            if len(rows) != counts.get(name) or other or each:
                self.result.differing.append(f"data: {name} holds other examples than those that the run started from")

    def scores(self) -> list[Score]:
        """All figures of all models that are there; attacks too where the run was audited."""
        seed, manifest = self.plan.request.seed, self.plan.manifest
        spec = ObservationSpec(
            reading_splits(self.plan),
            self.level,
            seed=seed,
            manifest=manifest,
            remarks=remarks(self.plan.splits),
            answer_quantile=self.plan.request.answer_quantile,
            read_precision=self.plan.request.read_precision,
            parties=parties_in(manifest, self.plan.request.clients_send),
        )
        observed: dict[str, Observation] = {}
        after = open_model(str(self.folder / "model"), self.trust_code)
        with _no_cache(self.scratch / "cache"):
            if self.base is not None:
                observed["before"] = observe(self.base, "before", spec, self.reporter)
            for role, (model, origin) in self.golds.items():
                found = observe(model, role, spec, self.reporter, against=observed)
                checked = check_gold(found, observed, origin)
                observed[role] = replace(checked, again=functools.partial(self._gold, role))
            observed["after"] = observe(after, "after", spec, self.reporter, against=observed)
            given = {role: observed[role] for role, (_, origin) in self.golds.items() if not origin.retrained}
            observed |= refuse_copies(given, observed["after"])
            refused = [one.why for role, one in observed.items() if role == "gold" and one.refused]
            reads = {role: one for role, one in observed.items() if not one.refused}
            if "gold" in reads:
                reads = read_answers(self.golds["gold"][0], reads)
            accept = self.evidence["request"].get("accept") or {}
            found_scores = all_scores(reads, self.plan.capabilities, self.level, accept, spec.parties)
            return refuse_gold(found_scores, refused[0]) if refused else found_scores

    def _gold(self, role: str) -> Model:
        return self.golds[role][0]

    def lost_names(self) -> set[str]:
        """The names of the scores that the run could have, and that cannot be had with what is left."""
        gold = "gold" in {score["subject"] for score in self.evidence["scores"]}
        whole = self._names(self.request.audit, gold=gold, base=True)
        noise = {f"robustness_hidden_{name}" for name in ("share", "worst")} if SECOND_GOLD in self.lost else set()
        return whole - self._names(self.level, gold="gold" in self.golds, base=self.base is not None) | noise

    def _names(self, level: str, *, gold: bool, base: bool) -> set[str]:
        given, capabilities = reading_splits(self.plan), self.plan.capabilities
        names = scores.score_names(capabilities, given, gold, base)
        return {*names, *attack.score_names(level, capabilities, given, gold)}

    def excuses(self, score: Score, lost: set[str]) -> bool:
        """Whether it is clear why the figure cannot be had again: its model is lost, or no prompts are answered."""
        if self.drift and score.side == "alignment" and score.name in SCORES_FROM_ANSWERS and score.role not in GOLDS:
            return True
        if score.role not in (*scores.ROLES, SECOND_GOLD) or not self.lost:
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


def _compare(evidence: Mapping[str, Any], remeasured: list[Score], again: _Again, result: Measured) -> None:
    """Compare each figure of the evidence with the one just measured, and the other way round; then the verdict."""
    certified, ours = figures.table(evidence["scores"]), figures.table(score.to_json() for score in remeasured)
    lost, unshown = again.lost_names(), set()
    for key, score in certified.items():
        mine = ours.get(key)
        if (mine is None or not mine.measured) and again.excuses(score, lost):
            unshown |= {key} if score.measured else set()
        elif mine is None:
            result.differing.append(f"{figures.title(key)}: in the evidence, but no figure that this request gives")
        else:
            said = figures.difference(score, mine, equal=result.equal, reasons=not again.lost)
            result.differing += [f"{figures.title(key)}: {said}"] if said else []
            if not figures.is_comparable(mine, equal=result.equal):
                unshown.add(key)
            elif mine.measured:
                result.compared += 1
    absent = [key for key in ours if key not in certified and (ours[key].measured or (result.equal and not again.lost))]
    result.differing += [f"{figures.title(key)}: of this request, but absent from the evidence" for key in absent]
    if again.drift and ("alignment_drift", "after") not in {(name, role) for name, _, role in certified}:
        result.differing.append("alignment_drift (after): of this request, but absent from the evidence")
    result.differing += figures.reordered_scores(certified, ours)
    if unshown:
        result.remarks.append(f"Not measured again: {', '.join(sorted({name for name, _, _ in unshown}))}.")
    if not result.equal:
        result.differing += figures.turned_checks(evidence, certified, ours)
    result.resting = figures.resting_checks(evidence, certified, unshown)
