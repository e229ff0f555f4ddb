"""Containment: the domains at risk, and the same run with other counts of retain examples from them."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

from expunge.alignment import risk
from expunge.alignment.domains import DomainAnswers
from expunge.alignment.observation import observe_answers
from expunge.alignment.spec import AlignmentSpec
from expunge.alignment.training_data import containment_rows, prepare_splits, without_retain_term
from expunge.core.contracts import Model, Reporter
from expunge.core.files import read_sealed, write_sealed
from expunge.data.splits import Splits
from expunge.methods.compose import compose
from expunge.models.open import open_model
from expunge.pipeline.apply import context_of
from expunge.pipeline.observe import Observation
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH


def ranked_domains(plan: Plan, folder: Path, reporter: Reporter) -> list[risk.Risk]:
    """The ranking of the domains, kept in the run's scratch for a resume.

    The model that the ranking spends is opened for it alone, and never beside another in memory.
    """
    kept = folder / SCRATCH / "foreseen.json"
    if (known := read_sealed(kept)) is not None:
        return [risk.Risk(**row) for row in known["domains"]]
    ranking = risks(plan, open_model(plan.source, plan.request.trust_code), reporter)
    gc.collect()
    write_sealed(kept, {"domains": [one.to_json() for one in ranking]})
    return ranking


def risks(plan: Plan, model: Model, reporter: Reporter) -> list[risk.Risk]:
    """The domains that the request puts at risk, the riskiest first; the model is spent."""
    assert plan.aligned is not None
    own = {**plan.splits, "retain": [row for row in plan.splits.get("retain", []) if "contained" not in row]}
    return risk.risks(
        model,
        plan.spec,
        own,
        plan.aligned,
        budget=plan.budget,
        manifest=plan.manifest,
        seed=plan.request.seed,
        reporter=reporter,
    )


def comparison_runs(plan: Plan, gold: Observation, folder: Path, reporter: Reporter) -> dict[int, DomainAnswers]:
    """Retain examples per domain -> answers of the same run's model with that many: 0 and the request's other counts.

    Empty where the request does not contain, or does not want its drift. A finished count is not run again.
    """
    wanted = plan.aligned
    if wanted is None or not wanted.contain or not wanted.drift:
        return {}
    answers = {}
    for count in (0, *wanted.other_counts):
        stage = f"contain-{count}" if count else "without"
        kept = folder / SCRATCH / stage / "answers.json"
        if (known := read_sealed(kept)) is None:
            changed = _model_with(plan, wanted, count, stage, gold, folder, reporter)
            name = f"with {count} examples" if count else "without containment"
            write_sealed(kept, observe_answers(changed, wanted, name, reporter).to_json())
            known = read_sealed(kept) or {}
        answers[count] = DomainAnswers.of(wanted.pack, known)
    return answers


def _model_with(
    plan: Plan, wanted: AlignmentSpec, count: int, stage: str, gold: Observation, folder: Path, reporter: Reporter
) -> Model:
    """The model that the method makes with so many retain examples per domain."""
    model = open_model(plan.source, plan.request.trust_code)
    rows = [row for row in plan.splits.get("retain", []) if "contained" not in row]
    splits: Splits = {name: found for name, found in plan.training_splits.items() if name != "retain"}
    if count:
        wanted = dataclasses.replace(wanted, contain=count)
        more, _ = prepare_splits(wanted, model, {"retain": containment_rows(wanted, plan.request.seed)}, None, reporter)
        rows = [*rows, *more["retain"]]
    if rows:
        splits["retain"] = rows
    composed = compose(without_retain_term(plan.spec, splits), has_retain="retain" in splits)
    context = context_of(plan, gold, folder / SCRATCH / stage, stage, reporter)
    return composed.method(model, splits, context)
