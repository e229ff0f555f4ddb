"""The method, from where a killed run left it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from expunge.core import processes
from expunge.core.context import Context, Log
from expunge.core.contracts import Model, Reporter
from expunge.core.errors import BadInput
from expunge.core.files import delete, digest_file, new_folder, read_sealed, write_json, write_sealed
from expunge.evaluation import acceptance
from expunge.ledger.certificate import tree
from expunge.models.manifest import MANIFEST, left_manifest
from expunge.models.metering import count_passes
from expunge.pipeline.observe import Observation
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH
from expunge.pipeline.stages import resident_peak
from expunge.training.sharding import is_sharded


@dataclass(frozen=True)
class Applied:
    """The outcome of the method: its time, passes and memory, and its notes for evidence and report."""

    seconds: float
    notes: dict[str, Any]
    peak_memory_bytes: int
    passes: dict[str, int] = field(default_factory=dict)
    """Positions of the forward and of the backward passes."""


DONE = "applied.json"
LOG = "log.jsonl"
APPLIED = "applied"
"""The last stage in the log."""


def apply(plan: Plan, model: Model, gold: Observation, folder: Path, reporter: Reporter) -> Applied:
    """Run the method, from where a killed run left it, and write `model/` by one rename.

    Raises BadInput where `model/` is there already and is not the one that the method left.
    """
    if (known := outcome_of(folder)) is not None:
        return known
    context = context_of(plan, gold, folder / SCRATCH, "apply", reporter, Log(folder / LOG))
    notes = context.notes
    if processes.main():
        context.log.drop(APPLIED)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    with count_passes(model, context.compute):
        changed = plan.composed.method(model, plan.training_splits, context)
    seconds = _seconds(notes, time.monotonic() - began)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident_peak()
    passes = processes.sum_over_processes({name: float(count) for name, count in context.compute.positions().items()})
    applied = Applied(round(seconds, 3), notes, peak, {name: round(count) for name, count in passes.items()})
    if processes.main():
        context.log.write({"stage": APPLIED, "seconds": applied.seconds})
        delete(folder / "model")  # whatever is there, `applied.json` is not about it
        with new_folder(folder / "model") as temporary:
            changed.save(temporary)
            write_json(temporary / MANIFEST, _manifest_after(plan))
            outcome = {"seconds": applied.seconds, "notes": notes, "peak_memory_bytes": peak, "passes": applied.passes}
            write_sealed(folder / SCRATCH / DONE, {**outcome, "model": _content(temporary)})
    processes.barrier()
    return applied


def outcome_of(folder: Path) -> Applied | None:
    """The outcome of a method that is done; None where it is not. Raises BadInput."""
    model, outcome = folder / "model", read_sealed(folder / SCRATCH / DONE)
    if outcome is None or not model.exists():
        return None
    if _content(model) != outcome.pop("model"):
        raise BadInput.of(
            "--resume",
            str(model),
            "is not the model that this run made",
            "restore the folder, or start anew in another one",
        )
    return Applied(**outcome)


def _content(model: Path) -> dict[str, str]:
    """File -> SHA-256; for anything that is not a plain file, its kind."""
    if model.is_symlink() or not model.is_dir():
        return {"": "no folder"}
    inside = tree(model)
    return {name: digest_file(model / name) for name in inside.files} | inside.others


def context_of(
    plan: Plan, gold: Observation, folder: Path, stage: str, reporter: Reporter, log: Log | None = None
) -> Context:
    """Where the method works: for the run and its comparison runs the same but for folder, stage and log."""
    readout = gold.readouts.get("forget")
    score = plan.aligned.stopping_score(plan.request.seed) if plan.aligned else None
    return Context(
        plan.budget,
        folder,
        plan.request.seed,
        stage,
        watch=acceptance.watch(plan.rules),
        refusals=_by_first(score) if score is not None else None,
        kept=plan.aligned.floor_rows if plan.aligned else [],
        manifest=plan.manifest,
        reporter=reporter,
        log=log or Log(),
        checkpoint_every=plan.checkpoint_every,
        gold_forget_nll=None if readout is None or readout.nll_N is None else float(readout.mean_nll_N.mean()),
    )


def _by_first(score: Callable[[Model], float]) -> Callable[[Model], float]:
    """The score as the first process finds it; as all find it where none can answer without the others."""

    def find(model: Model) -> float:
        return score(model) if is_sharded(model.module) else processes.from_first(lambda: score(model))

    return find


def _manifest_after(plan: Plan) -> dict[str, Any]:
    """The changed model's manifest: without the data, which would name the forget set.

    An exact ensemble must be able to serve the next deletion: it keeps the place of its data, and the
    hashes of those that are left.
    """
    if plan.composed.yields == "ensemble" and plan.manifest:
        return left_manifest(plan.manifest, plan.splits["forget"])
    kept = {k: v for k, v in (plan.manifest or {}).items() if k in ("schema", "learning_rate", "template", "seed")}
    return {**kept, "data": None}


def _seconds(notes: Mapping[str, Any], now: float) -> float:
    """Time of the whole method, with the time that killed processes spent: the trainer keeps that."""
    outcome = notes.get("outcome")
    return max(now, float(outcome["seconds"])) if outcome else now
