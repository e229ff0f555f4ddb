"""Evidence for a model changed by anyone, with any tool."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.alignment.evidence import alignment_evidence
from expunge.alignment.spec import AlignmentSpec, reject_unused
from expunge.core import processes
from expunge.core.audit_request import AuditRequest
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, Faults
from expunge.data.conflicts import conflict_notes
from expunge.data.duplicates import duplicate_notes
from expunge.data.fields import ignored_answers
from expunge.data.sampling import sample
from expunge.data.splits import FURTHER, Splits, make_splits
from expunge.evaluation import acceptance
from expunge.evaluation import attack as attacking
from expunge.evaluation import scores as scoring
from expunge.evaluation.margins import margins
from expunge.ledger.evidence import SECOND_GOLD
from expunge.models.comparable import check_terms, terms_of
from expunge.models.manifest import manifest_of
from expunge.models.open import open_model
from expunge.models.prompt_notes import prompt_notes
from expunge.pipeline import evidence as dossier
from expunge.pipeline import out_folder
from expunge.pipeline.clients import Holder, Parties, check_parties, holder_in
from expunge.pipeline.comparison import all_scores, by_side, cut_remarks
from expunge.pipeline.compatibility import fits_model
from expunge.pipeline.exhibits import exhibits
from expunge.pipeline.fluency import with_fluency
from expunge.pipeline.gold import held_out_remarks
from expunge.pipeline.gold_check import refuse_gold
from expunge.pipeline.hidden_knowledge import judge
from expunge.pipeline.margins import margin_note
from expunge.pipeline.observation_spec import ObservationSpec
from expunge.pipeline.observe import GoldSpec, Observation, observe, observe_retrained, refuse_copies
from expunge.pipeline.partition import counted_rows, reading_limit, repeat_notes
from expunge.pipeline.rounds import rounds_exhibit
from expunge.pipeline.stages import StageClock
from expunge.pipeline.worlds import folder_of
from expunge.report.html import render
from expunge.training.precision import read_notes
from expunge.workflows._audit_golds import gold_models
from expunge.workflows._sources import check_sources

SPLITS = ("data", "forget", "retain", "holdout", "test", *FURTHER)
"""The data of an audit, by the fields of its request."""


def audit(
    request: AuditRequest | Mapping[str, Any] | str | None = None, *, reporter: Reporter | None = None, **fields: Any
) -> dict[str, Any]:
    """Measure a model that was changed elsewhere, and return the evidence; with `out` also write it with its report.

    request: an AuditRequest, a mapping of its fields, or the model alone. fields: fields of AuditRequest, as in
    `audit("model", forget="f.jsonl", gold="retrained")`. Raises BadInput with every fault before a model is opened.
    """
    began = time.monotonic()
    reporter = reporter or Silent()
    plan = _plan(request, fields)
    processes.barrier()  # every process has looked at the folder before one writes to it
    out = plan.request.out if processes.main() else None
    with out_folder.hold(out):
        clock = StageClock()
        observed = _observe(plan, reporter)
        clock.end("observation")
        evidence = processes.from_first(lambda: _evidence(plan, observed, began))
        clock.end("scores")
        evidence["cost"]["stages"] = clock.lines
        if out is not None:
            out_folder.write(out, evidence, render)
    return evidence


@dataclass(frozen=True)
class _Plan:
    """An audit, checked as far as it can be without opening a model."""

    request: AuditRequest
    splits: Splits
    criteria: list[acceptance.Criterion]
    prompts: AlignmentSpec | None
    """The domains' prompts that are put to the models, where the request wants alignment."""
    parties: Parties | None
    """The clients of the federation that trained the model."""

    @property
    def rows(self) -> Splits:
        """The examples that are read: all that must go, and a seeded sample of the others."""
        seed, most = self.request.seed, self.request.held_out_rows
        return {
            name: rows if scoring.must_go(name) else sample(rows, seed, reading_limit(name, self.splits, most))
            for name, rows in ((name, counted_rows(name, rows)) for name, rows in self.splits.items())
        }


def _plan(given: AuditRequest | Mapping[str, Any] | str | None, fields: Mapping[str, Any]) -> _Plan:
    faults = Faults()
    request, errors = AuditRequest.of(given, fields)
    for error in errors:
        faults.add(error)
    if request is None:
        raise BadInput.all(faults.errors)
    splits: Splits = {}
    prompts: AlignmentSpec | None = None
    holder: Holder | None = None
    criteria = []
    with faults:
        sources = {name: getattr(request, name) for name in SPLITS}
        holder = holder_in([request.before or request.model])
        check_parties(holder, request.clients_send, request.level)
        splits = make_splits(sources, probes=request.probes, seed=request.seed, turns=request.turns, client=holder)
    with faults:
        prompts = _prompts(request)
    with faults:
        check_sources(request.sources, request.trust_code)
    for key, text in request.accept.items():
        with faults:
            criteria.append(acceptance.parse(key, text))
    if request.out is not None:
        with faults:
            out_folder.free(request.out)
    faults.raise_any()
    parties = Parties(holder, request.clients_send) if holder else None
    return _Plan(request, splits, criteria, prompts, parties)


def _prompts(request: AuditRequest) -> AlignmentSpec | None:
    if request.alignment != "none":
        return AlignmentSpec.for_audit(request.domains, request.judge, request.model)
    reject_unused("domains" if request.domains is not None else "", "judge" if request.judge != "rules" else "")
    return None


@dataclass(frozen=True)
class _Observed:
    """The observations by role, and what they say of the models; golds without figures where they were refused."""

    roles: dict[str, Observation]
    capabilities: frozenset[str]
    notes: list[str]

    @property
    def reads(self) -> dict[str, Observation]:
        """The observations with figures."""
        return {role: one for role, one in self.roles.items() if not one.refused}

    @property
    def golds(self) -> list[Observation]:
        return [one for role, one in self.roles.items() if role in ("gold", SECOND_GOLD)]


def _observe(plan: _Plan, reporter: Reporter) -> _Observed:
    """Open and observe the models one after the other. Raises BadInput where one does not go with the data."""
    request, rows = plan.request, plan.rows
    notes = [*ignored_answers(plan.splits), *duplicate_notes(plan.splits), *conflict_notes(plan.splits)]
    notes += [*repeat_notes(plan.splits), *read_notes(request.read_precision)]
    roles: dict[str, Observation] = {}
    folder = folder_of(request.before or request.model, reporter)
    notes += held_out_remarks(manifest_of(folder), plan.splits, request.trust_code)
    model = _open(plan, folder, notes)
    golds = gold_models(request, plan.splits, folder, model)
    capabilities = model.capabilities
    _check_scores(plan, capabilities, {*request.sources, *golds.sources})  # before anything is read
    reads = (rows, request.level, plan.prompts, request.seed, _manifest(plan, folder))
    spec = ObservationSpec(
        *reads,
        answer_quantile=request.answer_quantile,
        read_precision=request.read_precision,
        parties=plan.parties,
        views=request.clients_send != "sums",
    )
    others = {}
    if request.before is None:
        others["after"] = Observation(model.fingerprint())  # which gold must not be either
    else:
        roles["before"] = observe(model, "before", spec, reporter)
    for role, source in golds.sources.items():
        place = source if source == "train" else folder_of(source, reporter)
        wanted = GoldSpec(role, place, manifest_of(folder), plan.splits["forget"], request.trust_code)
        roles[role] = observe_retrained(wanted, model, spec, roles, reporter, others=others)
    if request.before is not None:
        terms, forget = terms_of(model, rows["forget"]), rows["forget"]
        del model  # one is in memory at a time
        model = _open(plan, folder_of(request.model, reporter), notes)
        check_terms(model, terms, forget, "before", request.before)
    roles["after"] = observe(model, "after", spec, reporter, against=roles)
    given = {role: one for role, one in roles.items() if golds.sources.get(role, "train") != "train"}
    roles |= refuse_copies(given, roles["after"])
    return _Observed(roles, capabilities, [*notes, *golds.why, *_template_notes(roles)])


def _template_notes(roles: Mapping[str, Observation]) -> list[str]:
    """A sentence for each model that is asked in another chat template than the audited one."""
    known = {role: one.fingerprint for role, one in roles.items() if isinstance(one.fingerprint, Mapping)}
    ours = known.get("after", {}).get("template")
    others = [role.replace("_", " ") for role, one in known.items() if one.get("template") != ours]
    return [f"{role}: its chat template is another than the model's; figures may differ by it." for role in others]


def _open(plan: _Plan, folder: str, notes: list[str]) -> Model:
    """The model, checked against the data; what there is to say of its prompts is added to the notes."""
    model = open_model(folder, plan.request.trust_code)
    fits_model(model, plan.rows)
    notes += [note for note in prompt_notes(model, plan.rows, plan.request.turns) if note not in notes]
    return model


def _manifest(plan: _Plan, first: str) -> dict[str, Any] | None:
    """The training manifest of the first model that has one."""
    folders = [first, *plan.request.golds.values(), plan.request.model]
    return next((found for folder in folders if (found := manifest_of(folder))), None)


def _check_scores(plan: _Plan, capabilities: frozenset[str], roles: set[str]) -> None:
    """Check that all scores that the criteria name are measured. roles: the models to observe. Raises BadInput."""
    rows, level = plan.splits, plan.request.level
    names = scoring.score_names(capabilities, rows, "gold" in roles, "before" in roles)
    names += attacking.score_names(level, capabilities, rows, "gold" in roles)
    faults = Faults()
    if plan.prompts is not None:
        names += [name for name in plan.prompts.names if "before" in roles or name != "alignment_drift"]
        with faults:
            plan.prompts.check(capabilities, plan.rows)
    for criterion in plan.criteria:
        with faults:
            criterion.names_score(names, roles)
    faults.raise_any()


def _rounds(request: AuditRequest) -> dict[str, Any]:
    """The rounds of the federation that trained the model before the change, or the model itself."""
    source = folder_of(request.before or request.model)
    return rounds_exhibit(source, manifest_of(source), None, request.redacted, request.trust_code)


def _evidence(plan: _Plan, observed: _Observed, began: float) -> dict[str, Any]:
    request, reads = plan.request, with_fluency(observed.reads, plan.request.trust_code)
    answers = {role: one.aligned for role, one in reads.items()}
    aligned = alignment_evidence(plan.prompts, answers.get("before"), answers["after"], {}, request.redacted)
    scores = all_scores(reads, observed.capabilities, request.level, request.accept, plan.parties)
    refused = [one.why for one in observed.golds if one.refused]
    scores = by_side(
        [*(scores if "gold" in reads or not refused else refuse_gold(scores, refused[0])), *aligned.scores]
    )
    two = [margin_note(margins(scores))] if {"gold", SECOND_GOLD} <= reads.keys() else []
    return dossier.build(
        request={
            **request.as_written("model", "before", "gold", "purpose"),
            "redact": request.redacted,
            "audit": request.level,
            **request.as_written("accept", "turns", "seed"),
            **({"answer_quantile": request.answer_quantile} if request.answer_quantile != 1 else {}),
            **({"read_precision": request.read_precision} if request.read_precision != "own" else {}),
            **({"held_out_rows": request.held_out_rows} if request.held_out_rows != "auto" else {}),
        },
        method="audit of a changed model",
        scores=scores,
        cost={"audit_seconds": round(time.monotonic() - began, 2), **dossier.reading_cost(reads)},
        verdict=judge(request.accept, scores, request.purpose),
        notes=[*observed.notes, *aligned.notes, *refused, *two, *cut_remarks(reads)],
        splits=plan.splits,
        **({"alignment": aligned.page} if aligned.page else {}),
        **exhibits(reads, scores, request.redacted, observed.capabilities, plan.parties),
        **_rounds(request),
    )
