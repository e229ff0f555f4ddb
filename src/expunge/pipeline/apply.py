"""The method, from where a killed run left it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from expunge.core import processes
from expunge.core.context import Context, Log
from expunge.core.contracts import Reporter, Subject
from expunge.core.files import new_folder, read_json, write_json
from expunge.evaluation import acceptance as accept
from expunge.models.manifest import MANIFEST, left_manifest
from expunge.pipeline.observe import Read
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH


@dataclass
class Applied:
    """How the method went."""

    seconds: float
    notes: dict[str, Any]
    peak_memory_bytes: int


APPLIED = "applied"
"""The last stage in the log."""


def apply(plan: Plan, subject: Subject, gold: Read, folder: Path, reporter: Reporter) -> Applied:
    """The method, from where a killed run left it; writes `model/` by one rename."""
    done = folder / SCRATCH / "applied.json"
    if (folder / "model").is_dir() and done.is_file():
        return Applied(**read_json(done))
    context = context_of(plan, gold, folder / SCRATCH, "apply", reporter, Log(folder / "log.jsonl"))
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


def context_of(plan: Plan, gold: Read, folder: Path, stage: str, reporter: Reporter, log: Log | None = None) -> Context:
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
