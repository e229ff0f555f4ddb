"""The trials of `method: auto`: one strength after another, each judged by the whole evidence, until one passes."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core import processes
from expunge.core.contracts import Reporter
from expunge.core.files import delete, read_sealed, write_sealed
from expunge.evaluation.acceptance import Verdict
from expunge.models.open import open_model
from expunge.pipeline import evidence
from expunge.pipeline.apply import DONE, LOG, Applied, apply, outcome_of
from expunge.pipeline.choice import retraining_tokens
from expunge.pipeline.hidden_knowledge import judge
from expunge.pipeline.inputs import TRIAL
from expunge.pipeline.observe import Observation, ObservationSpec, observe_saved
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH
from expunge.pipeline.trial import Trial, Tried

JUDGED = "judged.json"


def run_trials(
    plan: Plan,
    before: Observation,
    golds: Mapping[str, Observation],
    spec: ObservationSpec,
    folder: Path,
    reporter: Reporter,
) -> Tried:
    """Try the rungs of the plan's ladder, and leave the best one's model in `folder`.

    The best is the one that passes, else the one that misses by the least. Each trial is kept in the scratch until the
    run ends, so that a resumed run tries nothing twice.
    """
    assert plan.ladder is not None
    done: dict[int, Trial] = {}
    seen: dict[int, Observation | None] = {}
    rung: int | None = plan.ladder.start
    while rung is not None:
        done[rung], seen[rung] = _trial(plan, rung, before, golds, spec, folder, reporter)
        rung = next_rung(done, plan)
    best = min(done.values(), key=lambda trial: (not trial.passed, trial.shortfall, trial.rung)).rung
    best = round(processes.agree(best))
    chosen = plan.at(best)
    applied = _adopt(_folder_of(folder, best), folder)
    after = seen[best] or observe_saved(chosen, folder, spec, {"before": before, "gold": golds["gold"]}, reporter)
    return Tried(chosen, applied, after, tuple(done.values()), ended_by_cost=_candidate(done, plan) is not None)


def next_rung(done: Mapping[int, Trial], plan: Plan) -> int | None:
    """The rung to try next; None where the trials end, or where one more would cost too much."""
    assert plan.ladder is not None
    rung, whole = _candidate(done, plan), retraining_tokens(plan.manifest, plan.splits)
    if rung is None or whole is None or plan.ladder.options.cost is None:
        return rung
    tokens = sum(trial.tokens for trial in done.values()) + plan.rungs[rung].tokens
    return None if processes.agree(float(tokens > plan.ladder.options.cost * whole)) else rung


def _candidate(done: Mapping[int, Trial], plan: Plan) -> int | None:
    """The rung to try next, whatever it costs; None where one passed, or none is left in that direction.

    Stronger where something is left, gentler where something was lost; none where only more examples could decide.
    Where both fail the last trial's direction is kept, upwards at first: a longer or stronger run forgets more, and on
    a ladder that also repairs, keeps more.
    """
    assert plan.ladder is not None
    options, last = plan.ladder.options, list(done.values())[-1]
    up = bool(last.left)
    if last.lost and last.left and len(done) > 1:
        up = last.rung > list(done.values())[-2].rung
    rung = last.rung + (1 if up else -1)
    stop = (
        not (last.left or last.lost) or len(done) >= options.trials or rung in done or not 0 <= rung < len(plan.rungs)
    )
    return None if processes.agree(float(stop)) else round(processes.agree(rung))


def _folder_of(folder: Path, rung: int) -> Path:
    return folder / SCRATCH / f"{TRIAL}{rung}"


def _trial(
    plan: Plan,
    rung: int,
    before: Observation,
    golds: Mapping[str, Observation],
    spec: ObservationSpec,
    folder: Path,
    reporter: Reporter,
) -> tuple[Trial, Observation | None]:
    """One trial, and its model as observed; None where it was judged by an earlier process."""
    place = _folder_of(folder, rung)
    if (known := read_sealed(place / JUDGED)) is not None:
        return Trial.from_json(known), None
    reporter.say(f"trial {rung + 1} of {len(plan.rungs)} strengths")
    one = plan.at(rung)
    place.mkdir(parents=True, exist_ok=True)
    applied = apply(one, open_model(plan.source, plan.request.trust_code), golds["gold"], place, reporter)
    gc.collect()
    after = observe_saved(one, place, spec, {"before": before, "gold": golds["gold"]}, reporter)
    verdict = Verdict(None, ())
    if processes.main():
        checked, reads = evidence.comparison(plan, before, after, golds)
        scores = evidence.scores_of(plan, reads, checked)
        guard = one.composed.yields == "guard"
        verdict = judge(_without_alignment(plan), scores, plan.request.purpose, guard=guard)
    trial = Trial.of(rung, verdict, applied, evidence.trained_tokens(applied.notes))
    if processes.main():
        write_sealed(place / JUDGED, trial.to_json())
    processes.barrier()
    return trial, after


def _without_alignment(plan: Plan) -> dict[str, Any]:
    """The acceptance criteria without those on the domains' prompts, which are answered by the last model alone."""
    names = set(plan.aligned.names) if plan.aligned else set()
    return {rule.key: rule.text for rule in plan.rules if rule.score not in names}


def _adopt(place: Path, folder: Path) -> Applied:
    """Make a trial's model and log the run's own; done again after a kill it ends the same."""
    outcome = read_sealed(place / SCRATCH / DONE)
    assert outcome is not None
    if processes.main():
        if (place / "model").exists():
            delete(folder / "model")
            (place / "model").rename(folder / "model")
        if (place / LOG).exists():
            shutil.copyfile(place / LOG, folder / LOG)
        write_sealed(folder / SCRATCH / DONE, outcome)
    processes.barrier()
    adopted = outcome_of(folder)
    assert adopted is not None
    return adopted
