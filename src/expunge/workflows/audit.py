"""Evidence for a model changed by anyone, with any tool."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expunge.alignment.evidence import alignment_evidence
from expunge.alignment.spec import AlignmentSpec, reject_unused
from expunge.core import processes
from expunge.core.audit_request import AuditRequest
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults
from expunge.data.duplicates import duplicate_notes
from expunge.data.fields import ignored_answers
from expunge.data.sampling import sample
from expunge.data.splits import Splits, make_splits
from expunge.evaluation import acceptance
from expunge.evaluation import attack as attacking
from expunge.evaluation import scores as scoring
from expunge.models.manifest import manifest_of
from expunge.models.prompt_notes import prompt_notes
from expunge.pipeline import evidence as dossier
from expunge.pipeline import out_folder
from expunge.pipeline.compatibility import fits_model
from expunge.pipeline.exhibits import exhibits
from expunge.pipeline.hidden_knowledge import judge
from expunge.pipeline.observe import Observation, ObservationSpec, observe
from expunge.pipeline.plan import OTHERS_READ
from expunge.report.html import render
from expunge.workflows._sources import check_sources, open_sources

NO_GOLD = "No gold model was given: how a model that never saw the data would score is not known."


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
    out = plan.request.out if processes.main() else None
    with out_folder.hold(out):
        observed, capabilities, notes = _observe(plan, reporter)
        evidence = _evidence(plan, observed, capabilities, notes, began)
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

    @property
    def rows(self) -> Splits:
        """The examples that are read: all that must go, and a seeded sample of the others."""
        return {
            name: rows if scoring.must_go(name) else sample(rows, self.request.seed, OTHERS_READ)
            for name, rows in self.splits.items()
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
    criteria = []
    with faults:
        sources = {name: getattr(request, name) for name in ("forget", "retain", "holdout", "test")}
        splits = make_splits(sources, probes=request.probes, seed=request.seed, turns=request.turns)
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
    return _Plan(request, splits, criteria, prompts)


def _prompts(request: AuditRequest) -> AlignmentSpec | None:
    if request.alignment != "none":
        return AlignmentSpec.for_audit(request.domains, request.judge, request.model)
    reject_unused("domains" if request.domains is not None else "", "judge" if request.judge != "rules" else "")
    return None


def _observe(plan: _Plan, reporter: Reporter) -> tuple[dict[str, Observation], frozenset[str], list[str]]:
    """(role -> observation, capabilities of the models, notes on their prompts).

    Raises BadInput where a model does not go with the data.
    """
    request, rows = plan.request, plan.rows
    notes = [*ignored_answers(plan.splits), *duplicate_notes(plan.splits)]
    spec = ObservationSpec(rows, request.level, plan.prompts, request.seed)
    observed: dict[str, Observation] = {}
    capabilities: frozenset[str] = frozenset()
    for role, folder, model in open_sources(request.sources, request.trust_code, reporter):
        if spec.manifest is None:  # of the first model that has one
            spec = replace(spec, manifest=manifest_of(folder))
        capabilities = model.capabilities
        fits_model(model, rows)
        notes += [note for note in prompt_notes(model, rows, request.turns) if note not in notes]
        if not observed:  # before anything is read: all are of one family
            _check_scores(plan, capabilities)
        observed[role] = observe(model, role, spec, reporter, against=observed)
        del model
    return observed, capabilities, notes


def _check_scores(plan: _Plan, capabilities: frozenset[str]) -> None:
    """Check that all scores that the criteria name are measured. Raises BadInput."""
    roles, rows, level = set(plan.request.sources), plan.splits, plan.request.level
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


def _evidence(
    plan: _Plan,
    observed: Mapping[str, Observation],
    capabilities: frozenset[str],
    notes: Sequence[str],
    began: float,
) -> dict[str, Any]:
    request = plan.request
    answers = {role: one.aligned for role, one in observed.items()}
    aligned = alignment_evidence(plan.prompts, answers.get("before"), answers["after"], {}, request.redacted)
    scores = dossier.by_side(
        [*dossier.all_scores(observed, capabilities, request.level, request.accept), *aligned.scores]
    )
    return dossier.build(
        request={
            **request.as_written("model", "before", "gold", "purpose"),
            "redact": request.redacted,
            "audit": request.level,
            **request.as_written("accept", "turns", "seed"),
        },
        method="audit of a changed model",
        scores=scores,
        cost={"audit_seconds": round(time.monotonic() - began, 2), **dossier.reading_cost(observed)},
        verdict=judge(request.accept, scores, request.purpose),
        notes=[*notes, *aligned.notes, *([] if "gold" in observed else [NO_GOLD])],
        splits=plan.splits,
        **({"alignment": aligned.page} if aligned.page else {}),
        **exhibits(observed, scores, request.redacted),
    )
