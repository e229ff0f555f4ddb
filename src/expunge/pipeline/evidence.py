"""The one builder of evidence.json, for whichever verb; and the files of a finished run that follow from it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from expunge.alignment.domains import DomainAnswers
from expunge.alignment.evidence import alignment_evidence
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.files import finite, write_text
from expunge.core.request import redact_request
from expunge.core.version import versions
from expunge.evaluation import scores as scoring
from expunge.evaluation.acceptance import Verdict
from expunge.ledger.certificate import certificate, imprint, write_certificate
from expunge.ledger.evidence import SCHEMA, SECOND_GOLD, Evidence
from expunge.ledger.examples import write_evidence
from expunge.methods.repair import words_of
from expunge.models.manifest import retraining_tokens
from expunge.pipeline.comparison import by_side, cut_remarks
from expunge.pipeline.exhibits import exhibits
from expunge.pipeline.hidden_knowledge import judge
from expunge.pipeline.observe import Observation
from expunge.pipeline.plan import Plan
from expunge.pipeline.rounds import rounds_exhibit
from expunge.pipeline.run_folder import SCRATCH, close
from expunge.pipeline.trial import Trial, Tried, repair_remark
from expunge.report.card import model_card
from expunge.report.html import render
from expunge.training import checkpoint

NO_VERDICT = Verdict(None, ())


def build(
    *,
    request: Mapping[str, Any],
    scores: Sequence[scoring.Score],
    cost: Mapping[str, Any],
    splits: Mapping[str, Sequence[Example]],
    notes: Sequence[str],
    verdict: Verdict = NO_VERDICT,
    **own: Any,
) -> dict[str, Any]:
    """The evidence of one piece of work as its file holds it.

    scores: in any order; the file has them by side. own: further fields of `ledger.evidence.Evidence`.
    """
    values = {
        "schema": SCHEMA,
        "request": request,
        "scores": [score.to_json() for score in by_side(scores)],
        "cost": cost,
        "environment": environment(),
        "verdict": verdict.to_json(),
        "notes": notes,
        "splits": {name: len(rows) for name, rows in splits.items()},
        **own,
    }
    return Evidence.model_validate(finite(values)).to_json()


def evidence(tried: Tried, beside: Mapping[int, DomainAnswers], seconds: float) -> dict[str, Any]:
    """The evidence of a run. beside: as in `alignment_evidence`. seconds: of the whole run."""
    plan, applied, compared = tried.plan, tried.applied, tried.compared
    before, after, golds, reads = compared.before, compared.after, compared.golds, compared.reads
    trials = [trial.to_json() for trial in tried.trials]
    redact = plan.request.redacted
    aligned = alignment_evidence(plan.aligned, before.aligned, after.aligned, beside, redact, plan.foreseen)
    scores = by_side([*compared.scores, *aligned.scores])
    outcome = applied.notes.get("outcome") or {}
    return build(
        request=shown_request(plan),
        method=plan.composed.name,
        described=plan.composed.described,
        scores=scores,
        cost=_run_cost(tried, reads, golds, seconds),
        trials=trials,
        inputs=_input_digests(before, golds) | ({"files": plan.files} if plan.files else {}),
        verdict=judge(plan.request.accept, scores, plan.request.purpose, guard=plan.composed.yields == "guard"),
        curve=outcome.get("curve", []),
        stop=outcome.get("stop", {}),
        notes=[*plan.notes, *aligned.notes, *_gold_remarks(golds), *cut_remarks(reads), *_method_remarks(tried)],
        method_notes={} if redact else _method_notes(applied.notes),  # they may name groups of the forget set
        **({"guarantee": applied.notes["certified"]} if "certified" in applied.notes else {}),  # names no data
        yields=plan.composed.yields,
        splits=plan.splits,
        **({"alignment": aligned.page} if aligned.page else {}),
        **exhibits(reads, scores, redact, plan.capabilities, compared.parties),
        **rounds_exhibit(plan.source, plan.manifest, applied.notes.get("facts"), redact, plan.request.trust_code),
    )


def _input_digests(before: Observation, golds: Mapping[str, Observation]) -> dict[str, Any]:
    """Name -> digest of the base, of gold (None where there is none), and of a second gold."""
    found = {"base": before.fingerprint, **{role: one.fingerprint for role, one in golds.items()}}
    return {
        role: imprint(fingerprint) if fingerprint else None
        for role, fingerprint in found.items()
        if fingerprint or role != SECOND_GOLD
    }


def _run_cost(
    tried: Tried,
    reads: Mapping[str, Observation],
    golds: Mapping[str, Observation],
    seconds: float,
) -> dict[str, Any]:
    """Tokens and passes, which compare, then seconds, which depend on the machine and its load.

    Where the method stopped at gold's figures, gold's own tokens and seconds are part of the cost of unlearning, and so
    are all strengths that were tried.
    """
    gold, second_gold, applied = golds["gold"], golds[SECOND_GOLD], tried.applied
    exact = applied.notes.get("exact") or {}
    slowdown = reads["after"].slowdown
    used = gold.account if tried.plan.budget.stop == "gold" else {}
    spent = tried.trials or (Trial.of(0, NO_VERDICT, applied, trained_tokens(applied.notes)),)
    passes = [*(trial.passes for trial in spent), used.get("passes", {})]
    return {
        "tokens": sum(trial.tokens for trial in spent) + used.get("tokens", 0),
        "passes": {name: sum(one.get(name, 0) for one in passes) for name in applied.passes},
        **_retraining_cost("gold", gold),
        **_retraining_cost(SECOND_GOLD, second_gold),
        **reading_cost(reads),
        "unlearn_seconds": round(sum(trial.seconds for trial in spent) + used.get("seconds", 0.0), 3),
        "gold_seconds": gold.seconds,
        **({"second_gold_seconds": second_gold.seconds} if second_gold.seconds is not None else {}),
        "run_seconds": round(seconds, 2),
        **({"slowdown": slowdown} if slowdown is not None else {}),
        "peak_memory_bytes": applied.peak_memory_bytes,
        **{key: value for key, value in exact.items() if key not in ("said", "scheme")},
    }


def _retraining_cost(role: str, gold: Observation) -> dict[str, Any]:
    """Tokens and passes of a retraining, and the machine on which its seconds were taken, as far as they are known."""
    known = {name: gold.account.get(name) for name in ("tokens", "passes", "machine")}
    return {f"{role}_{name}": value for name, value in known.items() if value is not None}


def reading_cost(reads: Mapping[str, Observation]) -> dict[str, Any]:
    """Forward passes over the splits, and seconds of the attacks on each model that was attacked."""
    return {
        "forward_passes": {name: passes for read in reads.values() for name, passes in read.meter.passes.items()},
        **{f"attack_{role}_seconds": read.attack_seconds for role, read in reads.items() if read.attacks},
    }


def trained_tokens(notes: Mapping[str, Any]) -> int:
    """Tokens that were trained on: of the inner runs together where that is more (a wrapper's own outcome is that of
    its last run)."""
    inner = sum(
        trained_tokens(value) for key, value in notes.items() if isinstance(value, Mapping) and key != "outcome"
    )
    return max(inner, int((notes.get("outcome") or {}).get("tokens", 0)))


def shown_request(plan: Plan) -> dict[str, Any]:
    """The request as evidence and report show it: without anything that may name the forget set, where redacted."""
    resolved = plan.request.to_dict()
    return redact_request(resolved) if plan.request.redacted else resolved


def _gold_remarks(golds: Mapping[str, Observation]) -> list[str]:
    """Why there is no gold model, or no second one."""
    return [one.why for one in golds.values() if one.why]


def _method_remarks(tried: Tried) -> list[str]:
    """Sentences on the method, and on how it was chosen."""
    plan, notes = tried.plan, tried.applied.notes
    exact, outcome = notes.get("exact") or {}, notes.get("outcome") or {}
    remarks = [*exact.get("said", []), *notes.get("remarks", [])]
    if outcome and not exact:
        remarks.append(f"Learning rate {outcome['learning_rate']:.3g} ({outcome['rate_source']}).")
    if plan.composed.yields == "guard":
        remarks.append("A guard: without guard/ the model scores as before, and relearning starts from there.")
    words = {name: _words(value) for name, value in _method_notes(notes).items()}
    remarks += [f"{name.replace('_', ' ').capitalize()}: {text}." for name, text in words.items() if text]
    return remarks + _trial_remarks(tried)


def _trial_remarks(tried: Tried) -> list[str]:
    """Why `auto` chose its method or how a repair goes, and how each rung came out."""
    plan, trials = tried.plan, tried.trials
    if not trials or plan.ladder is None:
        return []
    remarks = [f"Method chosen by {plan.choice}."]
    for i, trial in enumerate(trials):
        missed, undecided = ", ".join((*trial.lost, *trial.left)), len(trial.undecided)
        more = f"{undecided} lines need more examples" if undecided else ""
        how = "; ".join(part for part in (missed and f"misses {missed}", more) if part) or "meets every line"
        tokens = "" if plan.ladder.lines else f", {trial.tokens:,} tokens"
        remarks.append(f"Trial {i + 1} ({plan.words_of(trial.rung)}{tokens}): {how}.")
    if plan.ladder.lines:
        remarks.append(repair_remark(words_of(plan.spec), trials))
    if tried.ended_by_cost:
        cost = plan.ladder.options.cost
        remarks.append(f"Another strength would take the trials over {cost:.0%} of a retraining's tokens (auto.cost).")
    whole = retraining_tokens(plan.manifest, plan.splits) if plan.gold == "train" else None
    if whole and not plan.ladder.lines and plan.spec != "retrain" and not any(trial.passed for trial in trials):
        remarks.append(f"No trial passed. A retraining forgets exactly, in about {whole:,} tokens (method: retrain).")
    if len(trials) > 1:
        remarks.append(
            f"The {len(trials)} trials were judged on the same examples, and the best is kept: its intervals do not "
            "account for that choice."
        )
    return remarks


def _method_notes(notes: Mapping[str, Any]) -> dict[str, Any]:
    """The notes that the method itself took."""
    return {k: v for k, v in notes.items() if k not in ("outcome", "exact", "remarks", "certified", "facts")}


def _words(value: Any) -> str:
    """A figure, or several with their names, in words; "" for anything longer."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and all(isinstance(v, int | float | None) for v in value.values()):
        return ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in value.items() if v is not None)
    return ""


def environment() -> dict[str, Any]:
    """Everything that bit-for-bit equality depends on: versions, threads, device and the processor's instructions."""
    device = processes.device()
    return {
        **versions(),
        "threads": torch.get_num_threads(),
        "processes": processes.process_count(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
    }


def write(plan: Plan, evidence: dict[str, Any], folder: Path) -> None:
    """Report, evidence and last the certificate; then the scratch goes.

    In this order, so that no moment at which the run is killed costs work: a finished run's scratch is deleted by the
    next `--resume` or `purge`.
    """
    write_text(folder / "report.html", render(evidence))
    write_text(folder / "README.md", model_card(evidence))
    write_evidence(folder, evidence)
    close(folder, plan.request.to_dict(), plan.request.redacted)
    write_certificate(folder, certificate(folder, evidence, plan.splits))
    checkpoint.clear(folder / SCRATCH)
