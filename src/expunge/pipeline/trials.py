"""The trials of `method: auto` and of a repair: one rung after another, each judged by the whole evidence."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from expunge.alignment.evidence import alignment_evidence
from expunge.core import processes
from expunge.core.contracts import Reporter
from expunge.core.files import delete, read_sealed, write_sealed
from expunge.evaluation.acceptance import Verdict
from expunge.models.manifest import retraining_tokens
from expunge.models.open import open_model
from expunge.pipeline import evidence
from expunge.pipeline.apply import DONE, LOG, Applied, apply, outcome_of
from expunge.pipeline.comparison import Comparison
from expunge.pipeline.hidden_knowledge import judge
from expunge.pipeline.inputs import TRIAL
from expunge.pipeline.observation_spec import ObservationSpec
from expunge.pipeline.observe import Observation, observe_saved
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH
from expunge.pipeline.trial import Trial, Tried, next_repair

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
    seen: dict[int, Comparison | None] = {}
    rung: int | None = plan.ladder.start
    while rung is not None:
        done[rung], seen[rung] = _trial(plan, rung, before, golds, spec, folder, reporter)
        _delete_others(folder, done, _best(done))
        rung = next_rung(done, plan)
    best = _best(done)
    chosen = plan.at(best)
    applied = _adopt(_folder_of(folder, best), folder)
    compared = seen[best] or _compare(chosen, folder, before, golds, spec, reporter)
    return Tried(chosen, applied, compared, tuple(done.values()), ended_by_cost=_candidate(done, plan) is not None)


def _best(done: Mapping[int, Trial]) -> int:
    """The rung of the trial that passes, else of the one that misses by the least, the first of equal ones."""
    best = min(done.values(), key=lambda trial: (not trial.passed, trial.shortfall, trial.rung))
    return round(processes.agree(best.rung))


def _delete_others(folder: Path, done: Mapping[int, Trial], best: int) -> None:
    """Delete the models of the trials that cannot be the best one any more: many large ones would fill the disk."""
    for rung in done:
        if rung != best and processes.main():
            delete(_folder_of(folder, rung) / "model")
    processes.barrier()


def next_rung(done: Mapping[int, Trial], plan: Plan) -> int | None:
    """The rung to try next; None where the trials end, or where one more would cost too much.

    It will cost more than planned by as much as the trials so far did.
    """
    assert plan.ladder is not None
    rung, whole = _candidate(done, plan), retraining_tokens(plan.manifest, plan.splits)
    if rung is None or whole is None or plan.ladder.options.cost is None:
        return rung
    spent, planned = (sum(each) for each in zip(*((trial.tokens, plan.rungs[i].tokens) for i, trial in done.items())))
    tokens = spent + plan.rungs[rung].tokens * max(1.0, spent / max(1, planned))
    return None if processes.agree(float(tokens > plan.ladder.options.cost * whole)) else rung


def _candidate(done: Mapping[int, Trial], plan: Plan) -> int | None:
    """The rung to try next, whatever it costs; None where one passed, or none is left.

    Where a way ends without a pass, the next one follows; none where only more examples could decide. For the ways of
    a repair see `next_repair`.
    """
    assert plan.ladder is not None
    options, trials = plan.ladder.options, list(done.values())
    if plan.ladder.lines:
        return next_repair(trials, plan.ladder.lines) if len(done) < options.trials else None
    length = len(plan.rungs) // plan.ladder.ways
    way = trials[-1].rung // length
    own = [trial for trial in trials if trial.rung // length == way]
    rung = _next_strength(own, range(way * length, (way + 1) * length), options.trials)
    if rung is None and (trials[-1].left or trials[-1].lost) and way + 1 < plan.ladder.ways:
        rung = (way + 1) * length + plan.ladder.start
    found = processes.agree(-1.0 if rung is None else float(rung))
    return None if found < 0 else round(found)


def _next_strength(trials: Sequence[Trial], rungs: range, most: int) -> int | None:
    """The rung of a way to try next; None where one passed, or none is left in that direction.

    Stronger where something is left, gentler where something was lost. Where both fail the last trial's direction is
    kept, upwards at first: a longer or stronger run forgets more, and on a ladder that also repairs, keeps more.
    """
    last = trials[-1]
    up = bool(last.left)
    if last.lost and last.left and len(trials) > 1:
        up = last.rung > trials[-2].rung
    rung = last.rung + (1 if up else -1)
    tried = rung in [trial.rung for trial in trials]
    return None if not (last.left or last.lost) or len(trials) >= most or tried or rung not in rungs else rung


def _folder_of(folder: Path, rung: int) -> Path:
    return folder / SCRATCH / f"{TRIAL}{rung}"


def _compare(
    plan: Plan,
    folder: Path,
    before: Observation,
    golds: Mapping[str, Observation],
    spec: ObservationSpec,
    reporter: Reporter,
) -> Comparison:
    """The model that was saved in this folder, observed, beside the others."""
    after = observe_saved(plan, folder, spec, {"before": before, **golds}, reporter)
    return Comparison(plan, before, after, golds)


def _trial(
    plan: Plan,
    rung: int,
    before: Observation,
    golds: Mapping[str, Observation],
    spec: ObservationSpec,
    folder: Path,
    reporter: Reporter,
) -> tuple[Trial, Comparison | None]:
    """One trial, and its model beside the others; None where it was judged by an earlier process."""
    place = _folder_of(folder, rung)
    if (known := read_sealed(place / JUDGED)) is not None:
        return Trial.from_json(known), None
    reporter.say(f"trial: {plan.words_of(rung)}")
    one = plan.at(rung)
    place.mkdir(parents=True, exist_ok=True)
    applied = apply(one, open_model(plan.source, plan.request.trust_code), golds["gold"], place, reporter)
    gc.collect()
    compared = _compare(one, place, before, golds, spec, reporter)
    verdict = processes.from_first(lambda: _verdict(compared))
    trial = Trial.of(rung, verdict, applied, evidence.trained_tokens(applied.notes))
    if processes.main():
        write_sealed(place / JUDGED, trial.to_json())
    processes.barrier()
    return trial, compared


def _verdict(compared: Comparison) -> Verdict:
    """The verdict on a trial's model."""
    plan, before, after = compared.plan, compared.before, compared.after
    aligned = alignment_evidence(plan.aligned, before.aligned, after.aligned, {}, plan.request.redacted)
    scores = [*compared.scores, *aligned.scores]
    guard = plan.composed.yields == "guard"
    return judge(plan.request.accept, scores, plan.request.purpose, guard=guard)


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
