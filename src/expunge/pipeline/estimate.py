"""The basis of the plan's estimates: lengths of examples, options of the part that chooses the weights."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from expunge.core import processes
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.data.examples import answer_of, question_of
from expunge.data.splits import Splits
from expunge.evaluation.scores import requirements
from expunge.methods.compose import Composed
from expunge.models.generation import common_limit
from expunge.training.pace import checkpoint_every

SAMPLED = 2_000
"""Answers of a split whose lengths are looked at."""


def lengths(model: Model, splits: Splits) -> tuple[dict[str, float], int]:
    """(mean tokens of an example by split, from a sample; tokens of the longest, from those longest in characters)."""
    means, longest = {}, 1
    for name, rows in splits.items():
        found = [model.length(row) for row in rows[:: max(1, len(rows) // 100)]]
        means[name] = sum(found) / len(found)
        wide = heapq.nlargest(20, rows, key=lambda row: len(question_of(row)) + len(answer_of(row)))
        longest = max(longest, *found, *(model.length(row) for row in wide))
    return means, longest


def counted_tokens(model: Model, splits: Splits) -> int:
    """The most tokens of an example that a loss may count, from the answers that are longest in characters."""
    rows = [row for split in splits.values() for row in heapq.nlargest(4, split, key=lambda row: len(answer_of(row)))]
    return max((int(model.collate([row]).n_B[0]) for row in rows), default=1)


def answer_limits(model: Model, splits: Splits, quantile: float) -> dict[str, int]:
    """Split -> most tokens of a generated answer whose reference is no longer; of the splits that are generated.

    From a sample of at most SAMPLED, of which the answers that are longest in characters count; all for a quantile.
    """
    if "generate" not in model.capabilities or (template := getattr(model, "template", None)) is None:
        return {}
    limits = {}
    for name, channels in requirements(model.capabilities, splits).items():
        if "generation" not in channels:
            continue
        rows = splits[name]
        some = [rows[i] for i in range(0, len(rows), -(-len(rows) // SAMPLED) or 1)]
        if not some:
            continue
        if quantile == 1:
            some = heapq.nlargest(4, some, key=lambda row: len(answer_of(row)))
        limits[name] = common_limit([len(template.encode(row).answer) for row in some], quantile)
    return limits


def checkpoint_interval(model: Model, moving: int, tokens: float, examples: int) -> int:
    """Steps between checkpoints of a model of which `moving` parameters train; tokens and examples: of a step."""
    parameters = sum(parameter.numel() for parameter in model.module.parameters())
    return checkpoint_every(moving, parameters, tokens, examples, processes.device().type)


def training_interval(model: Model, rows: Sequence[Example], batch_size: int) -> int:
    """Steps between checkpoints of a training of the whole model on these examples."""
    parameters = sum(parameter.numel() for parameter in model.module.parameters())
    means, _ = lengths(model, {"data": list(rows)})
    return checkpoint_interval(model, parameters, means["data"] * batch_size, batch_size)


def weights_kind(composed: Composed) -> str:
    """The part that chooses the weights."""
    return next((plugin.name for plugin in composed.plugins if plugin.kind == "weights"), "all")


def weights_options(composed: Composed) -> dict[str, Any]:
    """The options of the part that chooses the weights, of the innermost method."""
    found: Composed | None = composed
    while found is not None:
        if isinstance(found.described, dict) and "weights" in found.described:
            (options,) = found.described["weights"].values()
            return dict(options)
        found = found.inner
    return {}
