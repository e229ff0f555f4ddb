"""The stages of a run, each resumable: open, read, gold, apply, evidence, write."""

from __future__ import annotations

import gc
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge import accept, attacking, reading
from expunge import evidence as scoring
from expunge.builtin import build
from expunge.core.card import Example
from expunge.core.context import Context, Log
from expunge.core.contracts import Reporter, Subject
from expunge.core.files import digest, new_folder, read_json, write_json, write_text
from expunge.core.random import permutation
from expunge.core.readout import Readout
from expunge.data.examples import answer_of, question_of
from expunge.data.splits import Splits
from expunge.hidden import hidden, lines
from expunge.ledger.certificate import certificate
from expunge.plan import FORGET_READ, OTHERS_READ, Plan, audit_half, read_splits
from expunge.report.card import model_card
from expunge.report.html import render
from expunge.subjects.opening import MANIFEST
from expunge.train import gold as train_gold
from expunge.train import left_manifest, open_model, read_manifest
from expunge.training import checkpoint, processes


@dataclass
class Read:
    """The readouts of one subject, and what reading them took."""

    readouts: dict[str, Readout] = field(default_factory=dict)
    meter: reading.Meter = field(default_factory=reading.Meter)
    why: str = ""
    """Why there are none."""
    seconds: float | None = None
    """What making the model took (gold)."""
    attacks: dict[str, attacking.Found | str] = field(default_factory=dict)
    """What attacks on the model found, or why they could not run."""
    kept: list[str] = field(default_factory=list)
    """Names of the attacks' cache files."""
    attack_seconds: float = 0.0
    states: dict[str, np.ndarray] = field(default_factory=dict)
    """Module path -> [N, D] pooled hidden states, where a deep audit read them."""


@dataclass
class Applied:
    """How the method went."""

    seconds: float
    notes: dict[str, Any]
    peak_memory_bytes: int


def opened(plan: Plan, reporter: Reporter) -> Subject:
    """The model before the change; an embedded world's is built on first use."""
    source = plan.source
    if plan.builtin:
        source = str(build(plan.builtin, reporter))
        plan.manifest = read_manifest(Path(source))
    return open_model(source, plan.request.trust_code)


def reading_splits(plan: Plan) -> Splits:
    """What is read: the whole forget set and seeded samples; of the holdout the auditing half."""
    found: Splits = {}
    for name in read_splits(plan.splits):
        rows = plan.splits[name]
        if name == "holdout" and plan.budget.stop == "holdout":
            rows = audit_half(plan.splits, plan.request.seed)
        limit = FORGET_READ if name == "forget" else OTHERS_READ
        chosen = sorted(permutation(len(rows), plan.request.seed, "read", name)[:limit])
        found[name] = [rows[i] for i in chosen]
    return found


def read_into(subject: Subject, splits: Splits, who: str, reporter: Reporter) -> Read:
    """One pass a split; only the first process reads."""
    found = Read()
    if not processes.main():
        return found
    wanted = scoring.requirements(subject.capabilities, splits)
    fingerprint = subject.fingerprint()
    stage = f"reading {who}"
    reporter.start(stage, len(splits))
    for i, (name, rows) in enumerate(splits.items()):
        found.readouts[name] = reading.read(subject, name, rows, wanted[name], who=who, fingerprint=fingerprint,
                                            meter=found.meter)  # fmt: skip
        reporter.advance(stage, i + 1, name)
    reporter.finish(stage)
    return found


ATTACKED = 200
"""Examples of a split that attacks on a model take at most: a seeded sample, n stands with each figure."""


def attack(
    subject: Subject, splits: Splits, reads: Mapping[str, Read], who: str, level: str, manifest: Mapping[str, Any] | None,
    seed: int, reporter: Reporter,
) -> None:  # fmt: skip
    """Runs the level's attacks on an opened subject that was read; what they found is added to reads[who].

    manifest: how the model before the change was trained, where that is known.
    """
    if level == "none" or not processes.main() or "forget" not in reads[who].readouts:
        return
    began = time.monotonic()
    chosen = {name: sorted(permutation(len(rows), seed, "attack", name)[:ATTACKED]) for name, rows in splits.items()}
    taken = {whose: {name: readout.take(chosen[name]) for name, readout in read.readouts.items()}
             for whose, read in reads.items()}  # fmt: skip
    target = attacking.Target(
        subject, who, {name: [splits[name][i] for i in rows] for name, rows in chosen.items()}, taken[who],
        {whose: attacking.knowledge(found["forget"]) for whose, found in taken.items() if "forget" in found},
        float((manifest or {}).get("learning_rate") or attacking.RATE), manifest, seed,
        states={whose: read.states for whose, read in reads.items() if read.states and whose != who},
    )  # fmt: skip
    if level == "deep":  # the next subject is held against these
        reads[who].states = target.states_of(who) or {}
    reads[who].attacks = attacking.attack(level, target, reads[who].kept, reporter)
    reads[who].attack_seconds = round(time.monotonic() - began, 2)


def gold(plan: Plan, subject: Subject, splits: Splits, reporter: Reporter, before: Read | None = None) -> Read:
    """The readouts of the model retrained without the forget set, or why there are none.

    before: that of the model before the change; with it gold is also attacked, as the request says.
    """
    if not plan.gold:
        return Read(why=plan.no_gold)
    folder: Any = plan.gold
    if plan.gold == "train":
        assert plan.manifest is not None
        folder = train_gold(plan.manifest, plan.splits["forget"], subject, reporter)
    other = open_model(str(folder), plan.request.trust_code)
    found = read_into(other, splits, "gold", reporter)
    manifest = Path(folder) / MANIFEST
    found.seconds = read_json(manifest).get("seconds") if manifest.is_file() else None
    if before is not None:
        reads = {"before": before, "gold": found}
        attack(other, splits, reads, "gold", plan.request.audit, plan.manifest, plan.request.seed, reporter)
    del other
    gc.collect()
    return found


def apply(plan: Plan, subject: Subject, gold: Read, folder: Path, reporter: Reporter) -> Applied:
    """The method, from where a killed run left it; writes `model/` by one rename."""
    done = folder / "checkpoint" / "applied.json"
    if (folder / "model").is_dir() and done.is_file():
        return Applied(**read_json(done))
    request = plan.request
    notes: dict[str, Any] = {}
    if "forget" in gold.readouts:
        notes["gold_forget_nll"] = float(gold.readouts["forget"].mean_nll_N.mean())
    context = Context(
        plan.budget, folder / "checkpoint", request.seed, "apply", watch=accept.watch(plan.rules),
        manifest=plan.manifest, reporter=reporter, log=Log(folder / "log.jsonl"), notes=notes,
    )  # fmt: skip
    if checkpoint.latest(folder / "checkpoint" / "checkpoint") is None and processes.main():
        context.log.cut(0)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    changed = plan.composed.method(subject, plan.splits, context)
    seconds = _seconds(notes, time.monotonic() - began)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _resident()
    applied = Applied(round(seconds, 3), notes, peak)
    if processes.main():
        context.log.write({"stage": "applied", "seconds": applied.seconds})
        write_json(done, {"seconds": applied.seconds, "notes": notes, "peak_memory_bytes": peak})
        with new_folder(folder / "model") as temporary:
            changed.save(temporary)
            write_json(temporary / MANIFEST, _left(plan))
    processes.barrier()
    return applied


def _left(plan: Plan) -> dict[str, Any]:
    """What the changed model's folder says of its training: not the data, which would name the forget set.

    An exact ensemble must be able to serve the next deletion: it keeps where its data lie, and the
    hashes of those that are left.
    """
    if plan.composed.yields == "ensemble" and plan.manifest:
        return {**left_manifest(plan.manifest, plan.splits["forget"]), "unlearned": digest(plan.request.resolved())}
    kept = {k: v for k, v in (plan.manifest or {}).items() if k in ("schema", "learning_rate", "template", "seed")}
    return {**kept, "data": None, "unlearned": digest(plan.request.resolved())}


def _seconds(notes: Mapping[str, Any], now: float) -> float:
    """All of apply, with what killed processes spent before: the trainer keeps that."""
    outcome = notes.get("outcome")
    return max(now, float(outcome["seconds"])) if outcome else now


def _resident() -> int:
    """High-water mark of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def after(plan: Plan, splits: Splits, before: Read, gold: Read, folder: Path, reporter: Reporter) -> Read:
    """The model as it was saved, read and attacked: the evidence is of the artefact, not of what was in memory."""
    gc.collect()
    subject = open_model(str(folder / "model"), plan.request.trust_code)
    found = read_into(subject, splits, "after", reporter)
    reads = {"before": before, **({"gold": gold} if gold.readouts else {}), "after": found}
    attack(subject, splits, reads, "after", plan.request.audit, plan.manifest, plan.request.seed, reporter)
    return found


def measured(reads: Mapping[str, Read], capabilities: frozenset[str], level: str) -> list[scoring.Score]:
    """All scores: arithmetic on readouts, attacks on the models, and what these find hidden."""
    readouts = {who: read.readouts for who, read in reads.items()}
    scores = scoring.measure(readouts, capabilities)
    if level == "none":
        return scores
    attacks = {who: read.attacks for who, read in reads.items() if read.attacks}
    scores += attacking.scores(attacks, capabilities)
    gold = reads.get("gold")
    scores.append(hidden(
        attacks.get("after", {}), attacks.get("gold", {}), readouts["after"].get("forget"),
        gold.readouts.get("forget") if gold else None,
    ))  # fmt: skip
    return sorted(scores, key=lambda score: scoring.SIDES.index(score.side))


def recovered(reads: Mapping[str, Read]) -> dict[str, dict[str, list[Any]]]:
    """Attack -> subject -> the curve that it drew, for the report."""
    curves: dict[str, dict[str, list[Any]]] = {}
    for who, read in reads.items():
        for name, found in read.attacks.items():
            if isinstance(found, attacking.Found) and found.curve:
                curves.setdefault(name, {})[who] = [dict(point) for point in found.curve]
    return curves


def evidence(plan: Plan, before: Read, after: Read, gold: Read, applied: Applied, seconds: float) -> dict[str, Any]:
    """evidence.json, whole: scores, cost, environment, verdict, and what the report draws."""
    readouts = {"before": before.readouts, "after": after.readouts}
    if gold.readouts:
        readouts["gold"] = gold.readouts
    reads = {"before": before, "after": after, **({"gold": gold} if gold.readouts else {})}
    scores = measured(reads, plan.capabilities, plan.request.audit) if processes.main() else []
    kept = [accept.UNCHANGED] if plan.composed.yields == "guard" else []
    verdict = accept.verdict(plan.rules, scores, purpose=plan.request.purpose,
                             extra=[*kept, *lines(scores, plan.request.purpose)])  # fmt: skip
    outcome = applied.notes.get("outcome") or {}
    exact = applied.notes.get("exact") or {}
    notes = [*plan.notes, *exact.get("said", []), *([gold.why] if gold.why else []),
             *([] if exact else _rate_note(outcome))]  # fmt: skip
    if plan.composed.yields == "guard":
        notes.append("A guard: without guard/ the model scores as before, and relearning starts from there.")
    notes += [
        f"{name.replace('_', ' ').capitalize()}: {said}."
        for name, value in _own(applied.notes).items()
        if (said := _said(value))
    ]
    return {
        "schema": 1,
        "request": _shown(plan),
        "method": plan.composed.name,
        "described": plan.composed.described,
        "scores": [score.to_json() for score in scores],
        "cost": {
            "unlearn_seconds": round(applied.seconds, 3),
            "gold_seconds": gold.seconds,
            "peak_memory_bytes": applied.peak_memory_bytes,
            "forward_passes": {**before.meter.passes, **after.meter.passes, **gold.meter.passes},
            "tokens": int(outcome.get("tokens", 0)),
            "run_seconds": round(seconds, 2),
            **{key: value for key, value in exact.items() if key not in ("said", "scheme")},
            **attack_cost(reads),
        },
        "environment": environment(),
        "verdict": verdict.to_json(),
        "curve": outcome.get("curve", []),
        "stop": outcome.get("stop", {}),
        "notes": notes,
        "method_notes": {} if plan.request.redacted else _own(applied.notes),  # they may name groups of the forget set
        "yields": plan.composed.yields,
        "splits": {name: len(rows) for name, rows in plan.splits.items()},
        "distributions": {split: {who: read[split].mean_nll_N.tolist() for who, read in readouts.items() if split in read}
                          for split in before.readouts},
        "examples": examples(readouts, plan.request.redacted),
        "attack_curves": recovered(reads),
        "caches": [key for read in (before, after, gold) for key in (*read.meter.keys, *read.kept)],
    }  # fmt: skip


def attack_cost(reads: Mapping[str, Read]) -> dict[str, float]:
    """Seconds of the attacks by subject; nothing where none were run."""
    return {f"attack_{who}_seconds": read.attack_seconds for who, read in reads.items() if read.attacks}


def _shown(plan: Plan) -> dict[str, Any]:
    """The request as evidence and report show it: without examples given inline, where redacted."""
    shown = plan.request.resolved()
    if plan.request.redacted and isinstance(shown["forget"], list) and isinstance(shown["forget"][0], dict):
        shown["forget"] = f"{len(shown['forget'])} examples given in the request, redacted"
    return shown


def _rate_note(outcome: Mapping[str, Any]) -> list[str]:
    if not outcome:
        return []
    return [f"Learning rate {outcome['learning_rate']:.3g} ({outcome['rate_source']})."]


def _own(notes: Mapping[str, Any]) -> dict[str, Any]:
    """What the method itself noted."""
    return {k: v for k, v in notes.items() if k not in ("outcome", "gold_forget_nll", "exact")}


def _said(value: Any) -> str:
    """A figure, or several with their names, in words; nothing for what is longer."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and all(isinstance(v, int | float | None) for v in value.values()):
        return ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in value.items() if v is not None)
    return ""


def environment() -> dict[str, Any]:
    """What bit-for-bit equality hangs on: versions, threads, device."""
    import transformers

    device = processes.device()
    return {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "peft": version("peft"), "threads": torch.get_num_threads(), "processes": processes.world(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "machine": platform.machine(), "system": platform.system(),
    }  # fmt: skip


def examples(readouts: Mapping[str, Mapping[str, Readout]], redacted: bool) -> dict[str, list[dict[str, Any]]]:
    """Questions, answers and what each subject said, for the report; figures alone where redacted."""
    found: dict[str, list[dict[str, Any]]] = {}
    for split in ("forget", "retain"):
        if split not in readouts["after"]:
            continue
        rows: Sequence[Example] = readouts["after"][split].examples
        found[split] = [_example(i, row, split, readouts, redacted) for i, row in enumerate(rows)][:200]
    return found


def _example(
    i: int, row: Example, split: str, readouts: Mapping[str, Mapping[str, Readout]], redacted: bool
) -> dict[str, Any]:
    shown: dict[str, Any] = {"nll": {}}
    if redacted:
        shown["redacted"] = True
    elif "label" in row:
        shown["label"] = int(row["label"])
    else:
        shown |= {"question": question_of(row), "answer": answer_of(row)}
    for who, read in readouts.items():
        readout = read[split]
        shown["nll"][who] = float(readout.mean_nll_N[i])
        if redacted:
            continue
        if readout.texts is not None:
            shown[who] = readout.texts[i]
        elif readout.logp_NC is not None:
            shown[who] = int(readout.logp_NC[i].argmax())
    return shown


def write(plan: Plan, evidence: dict[str, Any], folder: Path) -> None:
    """Report, evidence and last the certificate; then the scratch goes."""
    write_text(folder / "report.html", render(evidence))
    write_text(folder / "README.md", model_card(evidence))
    write_json(folder / "evidence.json", evidence)
    statement = certificate(folder, evidence, plan.splits["forget"], plan.composed.described)
    checkpoint.clear(folder / "checkpoint")
    write_json(folder / "certificate.json", statement)
