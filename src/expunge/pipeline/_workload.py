"""The work of a plan before anything runs: steps, tokens, learning rate, and the memory and disk that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.budget import Budget, batch_size
from expunge.core.contracts import Model
from expunge.core.errors import Faults
from expunge.data.pairing import Pairing
from expunge.data.splits import Splits
from expunge.methods.compose import Composed
from expunge.pipeline.estimate import counted_tokens, lengths, weights_options
from expunge.pipeline.resources import Estimate, Load, estimate, fits_disk, fits_memory
from expunge.training.rate import from_manifest


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
    tokens = sum(means.get(split, 0.0) for split in streams.values()) * min(pairing.batch_size, sizes[anchor])
    counted, read = counted_tokens(model, splits), max(sizes.values())
    return Workload(steps, pairing.batch_size, len(streams), tokens, longest, counted, read)


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
    kind = next((plugin.name for plugin in composed.plugins if plugin.kind == "weights"), "all")
    options = weights_options(composed)
    # A limit that the user names may be another machine's: an accelerator, which keeps bfloat16 weights as they are.
    limited = budget.memory is not None

    def guess(
        weights: str = kind, micro: int | None = None, checkpointing: bool | None = None, elsewhere: bool = limited
    ) -> Estimate:
        load = Load(
            rows=int(micro or budget.micro_batch_size or work.batch) * max(1, work.streams),
            length=work.longest,
            counted=work.counted,
            parts=int(micro or budget.micro_batch_size or work.batch) < work.batch,
            read=work.read,
            steps=work.steps,
            tokens_per_step=work.tokens_per_step,
            checkpointing=bool(budget.gradient_checkpointing) if checkpointing is None else checkpointing,
            bf16=budget.precision == "bf16",
        )
        return estimate(model, load, weights=weights, options=options, elsewhere=elsewhere)

    there = guess()
    faults = Faults()
    with faults:
        fits_disk(there, kind, model, out)
    with faults:
        fits_memory(there, budget, kind, guess, model)
    faults.raise_any()
    return there, guess(elsewhere=False)
