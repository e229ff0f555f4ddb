"""Domains at risk, and the runs beside a run that contain more or less of them."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

from expunge.alignment import observation, risk
from expunge.alignment.domains import DomainAnswers
from expunge.alignment.spec import AlignmentSpec
from expunge.alignment.training_data import containment_rows, prepare_splits, without_retain_term
from expunge.core import processes
from expunge.core.contracts import Model, Reporter
from expunge.core.files import read_sealed, write_sealed
from expunge.data.splits import Splits
from expunge.methods.compose import compose
from expunge.models.open import open_model
from expunge.pipeline.apply import context_of
from expunge.pipeline.load import opened
from expunge.pipeline.observe import Read
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH


def foreseen(plan: Plan, folder: Path, reporter: Reporter) -> list[risk.Risk]:
    """The ranking of the domains, kept for a resume; the model that it spends is never beside another in memory."""
    kept = folder / SCRATCH / "foreseen.json"
    if (known := read_sealed(kept)) is not None:
        plan.foreseen = [risk.Risk(**row) for row in known["domains"]]
        return plan.foreseen
    plan.foreseen = risks(plan, opened(plan, reporter), reporter)
    gc.collect()
    if processes.main():
        write_sealed(kept, {"domains": [one.to_json() for one in plan.foreseen]})
    return plan.foreseen


def risks(plan: Plan, model: Model, reporter: Reporter) -> list[risk.Risk]:
    """The domains that the request puts at risk, the riskiest first; the model is spent."""
    assert plan.aligned is not None
    own = {**plan.splits, "retain": [row for row in plan.splits.get("retain", []) if "contained" not in row]}
    return risk.risks(
        model,
        plan.request.method,
        own,
        plan.aligned,
        budget=plan.budget,
        manifest=plan.manifest,
        seed=plan.request.seed,
        reporter=reporter,
    )


def beside(plan: Plan, gold: Read, folder: Path, reporter: Reporter) -> dict[int, DomainAnswers]:
    """Retain examples of a domain -> what the model of the same run with so many of them says: 0, and the request's other
    counts. Empty where the request does not contain, or does not want its drift. A count that is done is not run again."""
    wanted = plan.aligned
    if wanted is None or not wanted.contain or not wanted.drift or not processes.main():
        return {}
    found = {}
    for count in (0, *wanted.other_counts):
        stage = f"contain-{count}" if count else "without"
        kept = folder / SCRATCH / stage / "answers.json"
        if (known := read_sealed(kept)) is None:
            write_sealed(kept, _beside(plan, wanted, count, stage, gold, folder, reporter).to_json())
            known = read_sealed(kept) or {}
        found[count] = DomainAnswers.of(wanted.pack, known)
    return found


def _beside(
    plan: Plan, wanted: AlignmentSpec, count: int, stage: str, gold: Read, folder: Path, reporter: Reporter
) -> DomainAnswers:
    model = open_model(plan.source, plan.request.trust_code)
    rows = [row for row in plan.splits.get("retain", []) if "contained" not in row]
    splits: Splits = {name: found for name, found in plan.splits.items() if name != "retain"}
    if count:
        wanted = dataclasses.replace(wanted, contain=count)
        more, _ = prepare_splits(wanted, model, {"retain": containment_rows(wanted, plan.request.seed)}, None, reporter)
        rows = [*rows, *more["retain"]]
    if rows:
        splits["retain"] = rows
    composed = compose(without_retain_term(plan.request.method, splits), has_retain="retain" in splits)
    context = context_of(plan, gold, folder / SCRATCH / stage, stage, reporter)
    changed = composed.method(model, splits, context)
    return observation.observe_answers(
        changed, wanted, f"with {count} examples" if count else "without containment", reporter
    )
