"""The spec of the observations of all models that a request compares: rows, attacks, prompts, and how they are read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.alignment.spec import AlignmentSpec
from expunge.core.random import permutation
from expunge.core.request import ReadPrecision
from expunge.data.sampling import halves
from expunge.data.splits import Splits
from expunge.pipeline.clients import Parties, parties_in
from expunge.pipeline.partition import counted_rows, evidence_splits, reading_limit, remarks
from expunge.pipeline.plan import Plan


@dataclass(frozen=True)
class ObservationSpec:
    """The observations to make of a model: the same for all models that are compared."""

    splits: Splits
    """The examples that are read."""
    level: str = "none"
    """Of the audit: which attacks are run."""
    alignment: AlignmentSpec | None = None
    """The prompts to answer; None for none."""
    seed: int = 0
    manifest: Mapping[str, Any] | None = None
    """How the model before the change was trained, where that is known: attacks that train use its learning rate."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """Split -> a remark on all figures of the changed model on it."""
    attacks: frozenset[str] | None = None
    """Names of the level's attacks that are run; None for all."""
    answer_quantile: float = 1.0
    """Of the true answers' lengths: as long may all generated answers become, and a few tokens longer."""
    read_precision: ReadPrecision = "own"
    """In which the splits are read; attacks read in the model's own."""
    names: tuple[str, ...] = ("",)
    """Beginnings of the names of the scores that the splits are read for; by default all."""
    parties: Parties | None = None
    """The clients that read rows of their own, of a federation."""
    views: bool = False
    """Whether the report wants views of a classifier (pipeline/views.py)."""


def reading_splits(plan: Plan) -> Splits:
    """The examples to read: seeded samples, large ones of what must go; what the method had is read as such."""
    found: Splits = {}
    for name, rows in evidence_splits(plan.splits).items():
        if name == "holdout" and "holdout" in plan.training_splits:
            _, rows = halves(rows, plan.request.seed)
        rows = counted_rows(name, rows)
        order = permutation(len(rows), plan.request.seed, "read", name)
        limit = reading_limit(name, plan.splits, plan.request.held_out_rows)
        # Where some rows alone carry false answers, what is measured with these needs them in the sample.
        first = list(itertools.islice((i for i in order if "perturbed_answer" in rows[i]), limit))
        known = set(first)
        rest = itertools.islice((i for i in order if i not in known), limit - len(first))
        found[name] = [rows[i] for i in sorted([*first, *rest])]
    return found


def reading_spec(plan: Plan) -> ObservationSpec:
    """The spec of an observation for scores alone: the splits, read as the request wants it."""
    request = plan.request
    return ObservationSpec(
        reading_splits(plan), answer_quantile=request.answer_quantile, read_precision=request.read_precision
    )


def spec_of(plan: Plan) -> ObservationSpec:
    """Everything that the request wants to know."""
    drift = plan.aligned if plan.aligned is not None and plan.aligned.drift else None
    reads = (reading_splits(plan), plan.request.audit, drift, plan.request.seed, plan.manifest)
    return ObservationSpec(
        *reads,
        remarks(plan.splits),
        answer_quantile=plan.request.answer_quantile,
        read_precision=plan.request.read_precision,
        parties=parties_in(plan.manifest, plan.request.clients_send),
        views=True,
    )
