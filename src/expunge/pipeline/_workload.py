"""The work of a plan before anything runs: steps, tokens, learning rate, and the memory and disk that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge.core import processes
from expunge.core.budget import Budget, batch_size
from expunge.core.contracts import Model, Term
from expunge.core.errors import Faults
from expunge.data.pairing import Pairing
from expunge.data.splits import Splits
from expunge.methods.compose import Composed
from expunge.models.logits import LABELS
from expunge.pipeline.estimate import checkpoint_interval, counted_tokens, lengths, weights_kind, weights_options
from expunge.pipeline.resources import (
    Estimate,
    Load,
    estimate,
    fits_disk,
    fits_memory,
    memory_limit,
    trainable_parameters,
)
from expunge.training.optimisers import moment_bytes
from expunge.training.parts import Cutting, Place
from expunge.training.precision import Precision, precision_of
from expunge.training.rate import from_manifest
from expunge.training.steps import Streams


@dataclass(frozen=True)
class Workload:
    """Steps, and what one of them takes."""

    steps: int
    batch: int
    """Examples per step of the stream that the others follow."""
    streams: int
    tokens_per_step: float
    longest: int
    """Tokens of the longest example."""
    counted: int
    """The most tokens of an example that a loss may count."""
    read: int
    """Examples of the largest split."""
    part: Place
    """The largest part of a step: its rows, and the tokens of the longest of them."""
    precision: Precision
    checkpoint_every: int
    """Steps between checkpoints at least; an epoch where that is longer."""


def workload(composed: Composed, model: Model, splits: Splits, budget: Budget, seed: int) -> Workload:
    """Steps and tokens of the method on these data."""
    objective = composed.objective
    anchor = objective.anchor if objective else "forget"
    streams = objective.streams() if objective else {}
    sizes = {name: len(rows) for name, rows in splits.items()}
    pairing = Pairing(anchor, sizes, batch_size(budget, sizes[anchor]), seed, "apply")
    steps = composed.method.steps  # an exact scheme knows what it will retrain
    if steps is None:
        steps = budget.steps if budget.steps is not None else int(budget.epochs or 1) * pairing.steps_per_epoch
    means, longest = lengths(model, splits)
    rows = min(pairing.batch_size, sizes[anchor])
    tokens = tokens_of_step(composed, means, rows, steps)
    moving, _ = trainable_parameters(model, weights_kind(composed), weights_options(composed))
    every = checkpoint_interval(model, moving, tokens, rows * len(streams))
    precision = precision_of(budget.precision, sum(parameter.numel() for parameter in model.module.parameters()))
    part = largest_part(
        model, splits, [split for split in streams.values() if splits.get(split)], pairing, budget, longest
    )
    counted, read = counted_tokens(model, splits), max(sizes.values())
    return Workload(steps, pairing.batch_size, len(streams), tokens, longest, counted, read, part, precision, every)


def tokens_of_step(composed: Composed, means: Mapping[str, float], rows: int, steps: int) -> float:
    """Tokens that a step trains on. means: of an example, by split. rows: of each stream."""
    method = composed.method
    if method.tokens is not None and steps:
        return method.tokens / steps
    if composed.objective is None:  # an exact scheme trains on what stays
        return means.get("retain", 0.0) * rows if method.steps else 0.0
    return sum(means.get(split, 0.0) for split in composed.objective.streams().values()) * rows


def takes_distributions(terms: Mapping[str, Term]) -> bool:
    """Whether one of the losses asks for more of the distributions than the labels' log-probabilities."""
    return any(want.channels - LABELS for want in Streams.of(terms).wants.values())


LOOKED_AT = 2048
"""Examples of an epoch up to which its steps are cut for the plan."""


def largest_part(
    model: Model, splits: Splits, streams: Sequence[str], pairing: Pairing, budget: Budget, longest: int
) -> Place:
    """The part of a step that takes most memory of a process, of the steps of one epoch; of a long epoch one of
    `longest` tokens.

    streams: the split of each.
    """
    cutting = Cutting.of(model, budget.micro_batch_size)
    places, examples = cutting.most or pairing.batch_size, pairing.sizes[pairing.anchor]
    if not streams or len(streams) * examples > LOOKED_AT:
        return Place(-(-min(places, examples) * max(1, len(streams)) // processes.world()), longest)
    pairing = replace(pairing, length=lambda split, row: model.length(splits[split][row]), _epochs={})
    found = []
    for step in range(pairing.steps_per_epoch):
        rows = [pairing.rows(split, step) for split in streams]
        lengths = [[model.length(splits[split][i]) for split, i in zip(streams, place)] for place in zip(*rows)]
        for part in cutting.cut([Place(len(place), max(place)) for place in lengths]):
            found.append(Place(sum(len(lengths[i]) for i in part), max(max(lengths[i]) for i in part)))
    largest = max(found, key=lambda part: part.rows * part.length)
    return Place(-(-largest.rows // processes.world()), largest.length)


def fit(composed: Composed, model: Model, splits: Splits, budget: Budget, seed: int) -> tuple[Budget, Workload]:
    """The budget with parts that fit its memory, or half of this machine's, where their size is `auto`; and the work.

    Where single examples do not fit either, the budget is left as it is.
    """
    whole = workload(composed, model, splits, budget, seed)
    limit, size, work, fitted = memory_limit(budget), whole.batch, whole, budget
    while budget.micro_batch_size == "auto" and _guess(composed, model, fitted, work).peak > limit:
        if size == 1:
            return budget, whole
        size = -(-size // 2)
        fitted = budget.model_copy(update={"micro_batch_size": size})
        work = workload(composed, model, splits, fitted, seed)
    return fitted, work


def learning_rate(composed: Composed, budget: Budget, manifest: Mapping[str, Any] | None, has_retain: bool) -> str:
    """The learning rate and its source, in words."""
    if isinstance(budget.learning_rate, float):
        return f"{budget.learning_rate:g} (given)"
    objective = composed.objective
    share = float(budget.share or 0.1) * (objective.rate if objective else 1.0)
    known = from_manifest(manifest, share)
    if known:
        return f"{known[0]:.3g} ({known[1]})"
    if has_retain:
        return "auto: a short seeded ladder on retain finds it when the run starts"
    return "1e-05 (auto: no retain data and no manifest to go by)"


def estimates(composed: Composed, model: Model, budget: Budget, work: Workload, out: Path) -> tuple[Estimate, Estimate]:
    """(memory and time under the budget's memory limit, the same on this very machine).

    Raises BadInput where memory or disk do not suffice.
    """
    kind = weights_kind(composed)
    guess = partial(_guess, composed, model, budget, work)
    there = guess()
    faults = Faults()
    with faults:
        fits_disk(there, kind, model, out)
    with faults:
        fits_memory(there, budget, kind, guess, model)
    faults.raise_any()
    return there, guess(elsewhere=False)


def _guess(
    composed: Composed,
    model: Model,
    budget: Budget,
    work: Workload,
    *,
    weights: str = "",
    micro: int | None = None,
    checkpointing: bool | None = None,
    elsewhere: bool | None = None,
) -> Estimate:
    """The estimate under the budget, or with other settings: trainable weights, places of a part, checkpointing."""
    # A limit that the user names may be another machine's: an accelerator, which keeps bfloat16 weights as they are.
    limited = budget.memory is not None
    rows = micro * max(1, work.streams) if micro else work.part.rows
    length = work.longest if micro else work.part.length
    load = Load(
        rows=rows,
        length=length,
        counted=min(work.counted, length),
        parts=rows * processes.world() < work.batch * work.streams,
        read=work.read,
        longest=work.longest,
        steps=work.steps,
        tokens_per_step=work.tokens_per_step,
        checkpointing=bool(budget.gradient_checkpointing) if checkpointing is None else checkpointing,
        moment_bytes=moment_bytes(budget),
        bf16=work.precision == "bf16",
        distributions=bool(composed.objective and takes_distributions(composed.objective.terms)),
    )
    made = estimate(
        model,
        load,
        weights=weights or weights_kind(composed),
        options=weights_options(composed),
        elsewhere=limited if elsewhere is None else elsewhere,
    )
    return made.over(processes.world()) if budget.shard and processes.device().type == "cuda" else made
