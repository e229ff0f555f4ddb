"""The stages of a run, each resumable: open, read, gold, apply, evidence, write."""

from __future__ import annotations

import dataclasses
import gc
import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.alignment import asking, evidencing, risk
from expunge.alignment.domains import Answered
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.context import Context, Log
from expunge.core.contracts import Reporter, Subject
from expunge.core.files import finite, new_folder, read_json, write_json, write_text
from expunge.core.random import permutation
from expunge.data.examples import answer_of, question_of
from expunge.data.splits import Splits
from expunge.evaluation import acceptance as accept
from expunge.evaluation import attack as attacking
from expunge.evaluation import reading
from expunge.evaluation import scores as scoring
from expunge.evaluation.readout import Readout
from expunge.ledger.certificate import certificate, write_certificate
from expunge.methods.compose import compose
from expunge.models.guarded import guards_of, unguarded
from expunge.models.open import MANIFEST, manifest_of
from expunge.pipeline.plan import FORGET_READ, OTHERS_READ, Plan, audit_half, read_splits
from expunge.pipeline.run_folder import SCRATCH, close
from expunge.pipeline.train import gold as train_gold
from expunge.pipeline.train import left_manifest, open_model, read_manifest
from expunge.pipeline.worlds import build
from expunge.report.card import model_card
from expunge.report.html import render
from expunge.training import checkpoint


@dataclass
class Read:
    """The readouts of one subject, and what reading them took."""

    fingerprint: Any = None
    """What tells the subject from another; None where nothing was opened."""
    readouts: dict[str, Readout] = field(default_factory=dict)
    meter: reading.Meter = field(default_factory=reading.Meter)
    why: str = ""
    """Why there are none."""
    seconds: float | None = None
    """What making the model took (gold)."""
    attacks: dict[str, attacking.Found | str] = field(default_factory=dict)
    """What attacks on the model found, or why they could not run."""
    attack_seconds: float = 0.0
    attacked: Sequence[Example] = ()
    """The forget examples that were attacked, in the order of what was found."""
    states: dict[str, np.ndarray] = field(default_factory=dict)
    """Module path -> [N, D] pooled hidden states, where a deep audit read them."""
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name -> weight on the CPU, where a deep audit holds the next subjects against them."""
    aligned: evidencing.Asked | None = None
    """What it said to the domains' prompts, where the request wants to know."""
    slowdown: float | None = None
    """Behind guards: how many times as long as the bare model it takes to score an example."""


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


def ready(plan: Plan, folder: Path, reporter: Reporter) -> Subject:
    """The model before the change, and the data as they will train: refusals in the model's own words, and containment
    in the domains at risk alone."""
    risky = risk.at_risk(_foreseen(plan, folder, reporter)) if plan.aligned and plan.aligned.auto else None
    subject = opened(plan, reporter)
    if plan.aligned is not None and (plan.aligned.target or plan.aligned.contain):
        plan.splits, notes = asking.prepared(plan.aligned, subject, plan.splits, risky, reporter)
        plan.notes += notes
    plan.notes += own_tokens(plan, subject)
    return subject


WORD = 4
"""Letters from which on a token of its own can give a name away."""


def own_tokens(plan: Plan, subject: Subject) -> list[str]:
    """Says so where a tokenizer that was trained on the forget set has words of it that no other example has."""
    spec = (plan.manifest or {}).get("model")
    tokenizer = getattr(subject, "tokenizer", None)
    if tokenizer is None or not isinstance(spec, Mapping) or "architecture" not in spec:
        return []
    left = _ids(tokenizer, plan.splits.get("forget", []))
    for name, rows in plan.splits.items():
        if name in ("retain", "holdout", "test", "reference"):
            for start in range(0, len(rows), 256):
                left -= _ids(tokenizer, rows[start : start + 256]) if left else set()
    count = sum(len(tokenizer.decode([i]).strip()) >= WORD for i in left)
    return (
        [
            f"The tokenizer was trained on the forget set too: {count} of its tokens are words or parts of words that occur "
            "in no other example, and they stay in the model's folder."
        ]
        if count
        else []
    )


def _ids(tokenizer: Any, rows: Sequence[Example]) -> set[int]:
    texts = [text for row in rows for text in (question_of(row), answer_of(row)) if text]
    return {i for ids in tokenizer(texts)["input_ids"] for i in ids} if texts else set()


def _foreseen(plan: Plan, folder: Path, reporter: Reporter) -> list[risk.Risk]:
    """The ranking of the domains, kept for a resume; the model that it spends is never beside another in memory."""
    kept = folder / SCRATCH / "foreseen.json"
    if kept.is_file():
        plan.foreseen = [risk.Risk(**row) for row in read_json(kept)]
        return plan.foreseen
    plan.foreseen = risks(plan, opened(plan, reporter), reporter)
    gc.collect()
    if processes.main():
        write_json(kept, [one.to_json() for one in plan.foreseen])
    return plan.foreseen


def risks(plan: Plan, subject: Subject, reporter: Reporter) -> list[risk.Risk]:
    """The domains that the request puts at risk, the riskiest first; the subject is spent."""
    assert plan.aligned is not None
    own = {**plan.splits, "retain": [row for row in plan.splits.get("retain", []) if "contained" not in row]}
    return risk.risks(
        subject,
        plan.request.method,
        own,
        plan.aligned,
        budget=plan.budget,
        manifest=plan.manifest,
        seed=plan.request.seed,
        reporter=reporter,
    )


def asked(plan: Plan, subject: Subject, read: Read, who: str, reporter: Reporter) -> None:
    """The domains' prompts put to the model, where the request wants its drift."""
    if plan.aligned is not None and plan.aligned.drift and processes.main():
        read.aligned = evidencing.ask(subject, plan.aligned, who, reporter)


def reading_splits(plan: Plan) -> Splits:
    """What is read: the whole forget set (and probes of it) and seeded samples; of the holdout the auditing half."""
    found: Splits = {}
    for name in read_splits(plan.splits):
        rows = plan.splits[name]
        if name == "holdout" and plan.budget.stop == "holdout":
            rows = audit_half(plan.splits, plan.request.seed)
        limit = FORGET_READ if scoring.must_go(name) else OTHERS_READ
        order = permutation(len(rows), plan.request.seed, "read", name)
        # Where some rows alone carry false answers, what is measured with these needs them in the sample.
        chosen = sorted(sorted(order, key=lambda i: "perturbed_answer" not in rows[i])[:limit])
        found[name] = [rows[i] for i in chosen]
    return found


WEIGHED = 2**30
"""Weights of a larger model are not kept beside it for a deep audit."""


def read_into(
    subject: Subject, splits: Splits, who: str, reporter: Reporter, level: str = "none", fingerprint: Any = None
) -> Read:
    """One pass a split; only the first process reads. level: of the audit; a deep one keeps the weights too.

    fingerprint: the subject's, where it is known already.
    """
    found = Read()
    if not processes.main():
        return found
    found.fingerprint = fingerprint or subject.fingerprint()
    if level == "deep" and sum(parameter.numel() for parameter in subject.module.parameters()) <= WEIGHED:
        found.weights = {
            name: x.detach().to("cpu", copy=True) for name, x in unguarded(subject).module.state_dict().items()
        }
    wanted = scoring.requirements(subject.capabilities, splits)
    stage = f"reading {who}"
    reporter.start(stage, len(splits))
    for i, (name, rows) in enumerate(splits.items()):
        found.readouts[name] = reading.read(
            subject, name, rows, wanted[name], who=who, fingerprint=found.fingerprint, meter=found.meter
        )
        reporter.advance(stage, i + 1, name)
    reporter.finish(stage)
    return found


ATTACKED = 200
"""Examples of a split that attacks on a model take at most: a seeded sample, n stands with each figure."""


def attack(
    subject: Subject,
    splits: Splits,
    reads: Mapping[str, Read],
    who: str,
    level: str,
    manifest: Mapping[str, Any] | None,
    seed: int,
    reporter: Reporter,
) -> None:
    """Runs the level's attacks on an opened subject that was read; what they found is added to reads[who].

    manifest: how the model before the change was trained, where that is known.
    """
    if level == "none" or not processes.main() or "forget" not in reads[who].readouts:
        return
    began = time.monotonic()
    chosen = {name: sorted(permutation(len(rows), seed, "attack", name)[:ATTACKED]) for name, rows in splits.items()}
    taken = {
        whose: {name: readout.take(chosen[name]) for name, readout in read.readouts.items()}
        for whose, read in reads.items()
    }
    target = attacking.Target(
        subject,
        who,
        {name: [splits[name][i] for i in rows] for name, rows in chosen.items()},
        taken[who],
        {whose: attacking.knowledge(found["forget"]) for whose, found in taken.items() if "forget" in found},
        float((manifest or {}).get("learning_rate") or attacking.RATE),
        manifest,
        seed,
        states={whose: read.states for whose, read in reads.items() if read.states and whose != who},
        weights={whose: read.weights for whose, read in reads.items() if read.weights and whose != who},
    )
    reads[who].attacked = target.forget
    if level == "deep":  # the next subject is held against these
        reads[who].states = target.states_of(who) or {}
    reads[who].attacks = attacking.attack(level, target, reporter)
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
    found = read_into(other, splits, "gold", reporter, plan.request.audit)
    found.seconds = (manifest_of(folder) or {}).get("seconds")
    if before is not None:
        reads = {"before": before, "gold": found}
        attack(other, splits, reads, "gold", plan.request.audit, plan.manifest, plan.request.seed, reporter)
    del other
    gc.collect()
    return found


APPLIED = "applied"
"""The last stage in the log."""


def apply(plan: Plan, subject: Subject, gold: Read, folder: Path, reporter: Reporter) -> Applied:
    """The method, from where a killed run left it; writes `model/` by one rename."""
    done = folder / SCRATCH / "applied.json"
    if (folder / "model").is_dir() and done.is_file():
        return Applied(**read_json(done))
    context = _context(plan, gold, folder / SCRATCH, "apply", reporter, Log(folder / "log.jsonl"))
    notes = context.notes
    if processes.main():
        context.log.drop(APPLIED)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    changed = plan.composed.method(subject, plan.splits, context)
    seconds = _seconds(notes, time.monotonic() - began)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _resident()
    applied = Applied(round(seconds, 3), notes, peak)
    if processes.main():
        context.log.write({"stage": APPLIED, "seconds": applied.seconds})
        write_json(done, {"seconds": applied.seconds, "notes": notes, "peak_memory_bytes": peak})
        with new_folder(folder / "model") as temporary:
            changed.save(temporary)
            write_json(temporary / MANIFEST, _left(plan))
    processes.barrier()
    return applied


def _context(plan: Plan, gold: Read, folder: Path, stage: str, reporter: Reporter, log: Log | None = None) -> Context:
    """Where the method works: the same for the run and for those beside it but for the folder, the stage and the log."""
    notes: dict[str, Any] = {}
    if "forget" in gold.readouts:
        notes["gold_forget_nll"] = float(gold.readouts["forget"].mean_nll_N.mean())
    return Context(
        plan.budget,
        folder,
        plan.request.seed,
        stage,
        watch=accept.watch(plan.rules),
        refusals=plan.aligned.watch(plan.request.seed) if plan.aligned else None,
        kept=plan.aligned.kept if plan.aligned else [],
        manifest=plan.manifest,
        reporter=reporter,
        log=log or Log(),
        notes=notes,
    )


def _left(plan: Plan) -> dict[str, Any]:
    """What the changed model's folder says of its training: not the data, which would name the forget set.

    An exact ensemble must be able to serve the next deletion: it keeps where its data lie, and the
    hashes of those that are left.
    """
    if plan.composed.yields == "ensemble" and plan.manifest:
        return left_manifest(plan.manifest, plan.splits["forget"])
    kept = {k: v for k, v in (plan.manifest or {}).items() if k in ("schema", "learning_rate", "template", "seed")}
    return {**kept, "data": None}


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
    if guards_of(subject):
        found.slowdown = slowdown(subject, [row for name in ("forget", "retain") for row in splits.get(name, [])[:32]])
    reads = {"before": before, **({"gold": gold} if gold.readouts else {}), "after": found}
    attack(subject, splits, reads, "after", plan.request.audit, plan.manifest, plan.request.seed, reporter)
    asked(plan, subject, found, "after", reporter)
    return found


def slowdown(guarded: Subject, rows: Sequence[Example]) -> float:
    """Time of a forward behind the guards, over that of the bare model: the least of three each, in turn."""
    bare, times = unguarded(guarded), {True: math.inf, False: math.inf}
    batch = guarded.collate(rows)
    with torch.no_grad():
        for behind in (True, False) * 3:
            began = time.perf_counter()
            (guarded if behind else bare).forward(batch)
            times[behind] = min(times[behind], time.perf_counter() - began)
    return round(times[True] / times[False], 3)


def beside(plan: Plan, gold: Read, folder: Path, reporter: Reporter) -> dict[int, Answered]:
    """Retain examples of a domain -> what the model of the same run with so many of them says: 0, and the request's other
    counts. Empty where the request does not contain, or does not want its drift. A count that is done is not run again."""
    wanted = plan.aligned
    if wanted is None or not wanted.contain or not wanted.drift or not processes.main():
        return {}
    found = {}
    for count in (0, *wanted.beside):
        stage = f"contain-{count}" if count else "without"
        kept = folder / SCRATCH / stage / "answers.json"
        if not kept.is_file():
            write_json(kept, _beside(plan, wanted, count, stage, gold, folder, reporter).to_json())
        found[count] = Answered.of(wanted.pack, read_json(kept))
    return found


def _beside(
    plan: Plan, wanted: asking.Asked, count: int, stage: str, gold: Read, folder: Path, reporter: Reporter
) -> Answered:
    subject = open_model(plan.source, plan.request.trust_code)
    rows = [row for row in plan.splits.get("retain", []) if "contained" not in row]
    splits: Splits = {name: found for name, found in plan.splits.items() if name != "retain"}
    if count:
        wanted = dataclasses.replace(wanted, contain=count)
        more, _ = asking.prepared(
            wanted, subject, {"retain": asking.candidates(wanted, plan.request.seed)}, None, reporter
        )
        rows = [*rows, *more["retain"]]
    if rows:
        splits["retain"] = rows
    composed = compose(asking.uncontained(plan.request.method, splits), has_retain="retain" in splits)
    context = _context(plan, gold, folder / SCRATCH / stage, stage, reporter)
    changed = composed.method(subject, splits, context)
    return evidencing.answers(changed, wanted, f"with {count} examples" if count else "without containment", reporter)


def write(plan: Plan, evidence: dict[str, Any], folder: Path) -> None:
    """Report, evidence and last the certificate; then the scratch goes.

    In this order, so that no moment at which the run is killed costs work: what the scratch of a finished run still
    holds is deleted by the next `--resume` or `purge`.
    """
    evidence = finite(evidence)  # as it will be read, so that the same pages can be drawn again
    write_text(folder / "report.html", render(evidence))
    write_text(folder / "README.md", model_card(evidence))
    write_json(folder / "evidence.json", evidence)
    close(folder, plan.request.resolved(), plan.request.redacted)
    write_certificate(folder, certificate(folder, evidence, plan.splits))
    checkpoint.clear(folder / SCRATCH)
