"""What is read of a model, what attacks find, what it says to prompts: before, gold and after."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.alignment.observation import AlignmentObservation, observe_alignment
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter
from expunge.core.random import permutation
from expunge.data.splits import Splits
from expunge.evaluation import attack as attacking
from expunge.evaluation import reading
from expunge.evaluation import scores as scoring
from expunge.evaluation.readout import Readout
from expunge.models.guarded import guards_of, unguarded
from expunge.models.manifest import manifest_of
from expunge.models.open import open_model
from expunge.pipeline.gold import gold as train_gold
from expunge.pipeline.plan import FORGET_READ, OTHERS_READ, Plan, audit_half, read_splits


@dataclass
class Read:
    """The readouts of one model, and what reading them took."""

    fingerprint: Any = None
    """What tells the model from another; None where nothing was opened."""
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
    """Name -> weight on the CPU, where a deep audit holds the next models against them."""
    aligned: AlignmentObservation | None = None
    """What it said to the domains' prompts, where the request wants to know."""
    slowdown: float | None = None
    """Behind guards: how many times as long as the bare model it takes to score an example."""


def asked(plan: Plan, model: Model, read: Read, role: str, reporter: Reporter) -> None:
    """The domains' prompts put to the model, where the request wants its drift."""
    if plan.aligned is not None and plan.aligned.drift and processes.main():
        read.aligned = observe_alignment(model, plan.aligned, role, reporter)


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
    model: Model, splits: Splits, role: str, reporter: Reporter, level: str = "none", fingerprint: Any = None
) -> Read:
    """One pass a split; only the first process reads. level: of the audit; a deep one keeps the weights too.

    fingerprint: the model's, where it is known already.
    """
    found = Read()
    if not processes.main():
        return found
    found.fingerprint = fingerprint or model.fingerprint()
    if level == "deep" and sum(parameter.numel() for parameter in model.module.parameters()) <= WEIGHED:
        found.weights = {
            name: x.detach().to("cpu", copy=True) for name, x in unguarded(model).module.state_dict().items()
        }
    wanted = scoring.requirements(model.capabilities, splits)
    stage = f"reading {role}"
    reporter.start(stage, len(splits))
    for i, (name, rows) in enumerate(splits.items()):
        found.readouts[name] = reading.read(
            model, name, rows, wanted[name], role=role, fingerprint=found.fingerprint, meter=found.meter
        )
        reporter.advance(stage, i + 1, name)
    reporter.finish(stage)
    return found


ATTACKED = 200
"""Examples of a split that attacks on a model take at most: a seeded sample, n stands with each figure."""


def attack(
    model: Model,
    splits: Splits,
    reads: Mapping[str, Read],
    role: str,
    level: str,
    manifest: Mapping[str, Any] | None,
    seed: int,
    reporter: Reporter,
) -> None:
    """Runs the level's attacks on an opened model that was read; what they found is added to reads[who].

    manifest: how the model before the change was trained, where that is known.
    """
    if level == "none" or not processes.main() or "forget" not in reads[role].readouts:
        return
    began = time.monotonic()
    chosen = {name: sorted(permutation(len(rows), seed, "attack", name)[:ATTACKED]) for name, rows in splits.items()}
    taken = {
        whose: {name: readout.take(chosen[name]) for name, readout in read.readouts.items()}
        for whose, read in reads.items()
    }
    target = attacking.Target(
        model,
        role,
        {name: [splits[name][i] for i in rows] for name, rows in chosen.items()},
        taken[role],
        {whose: attacking.knowledge(found["forget"]) for whose, found in taken.items() if "forget" in found},
        float((manifest or {}).get("learning_rate") or attacking.RATE),
        manifest,
        seed,
        states={whose: read.states for whose, read in reads.items() if read.states and whose != role},
        weights={whose: read.weights for whose, read in reads.items() if read.weights and whose != role},
    )
    reads[role].attacked = target.forget
    if level == "deep":  # the next model is held against these
        reads[role].states = target.states_of(role) or {}
    reads[role].attacks = attacking.attack(level, target, reporter)
    reads[role].attack_seconds = round(time.monotonic() - began, 2)


def gold(plan: Plan, model: Model, splits: Splits, reporter: Reporter, before: Read | None = None) -> Read:
    """The readouts of the model retrained without the forget set, or why there are none.

    before: that of the model before the change; with it gold is also attacked, as the request says.
    """
    if not plan.gold:
        return Read(why=plan.no_gold)
    folder: Any = plan.gold
    if plan.gold == "train":
        assert plan.manifest is not None
        folder = train_gold(plan.manifest, plan.splits["forget"], model, reporter)
    other = open_model(str(folder), plan.request.trust_code)
    found = read_into(other, splits, "gold", reporter, plan.request.audit)
    found.seconds = (manifest_of(folder) or {}).get("seconds")
    if before is not None:
        reads = {"before": before, "gold": found}
        attack(other, splits, reads, "gold", plan.request.audit, plan.manifest, plan.request.seed, reporter)
    del other
    gc.collect()
    return found


def after(plan: Plan, splits: Splits, before: Read, gold: Read, folder: Path, reporter: Reporter) -> Read:
    """The model as it was saved, read and attacked: the evidence is of the artefact, not of what was in memory."""
    gc.collect()
    model = open_model(str(folder / "model"), plan.request.trust_code)
    found = read_into(model, splits, "after", reporter)
    if guards_of(model):
        found.slowdown = slowdown(model, [row for name in ("forget", "retain") for row in splits.get(name, [])[:32]])
    reads = {"before": before, **({"gold": gold} if gold.readouts else {}), "after": found}
    attack(model, splits, reads, "after", plan.request.audit, plan.manifest, plan.request.seed, reporter)
    asked(plan, model, found, "after", reporter)
    return found


def slowdown(guarded: Model, rows: Sequence[Example]) -> float:
    """Time of a forward behind the guards, over that of the bare model: the least of three each, in turn."""
    bare, times = unguarded(guarded), {True: math.inf, False: math.inf}
    batch = guarded.collate(rows)
    with torch.no_grad():
        for behind in (True, False) * 3:
            began = time.perf_counter()
            (guarded if behind else bare).forward(batch)
            times[behind] = min(times[behind], time.perf_counter() - began)
    return round(times[True] / times[False], 3)
