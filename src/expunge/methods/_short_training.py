"""A short training of the base's start weights on retain: a gold model for a part of its cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from expunge.core.contracts import Model, Run
from expunge.methods.objective import plain_training
from expunge.methods.weights.lora import lora
from expunge.models.build import again, budget_of


def tokens_of_short(manifest: Mapping[str, Any] | None, part: float) -> int:
    """The tokens that `train_short` takes, for the plan; 0 where the base is not trained yet."""
    return round(part * (manifest or {}).get("tokens", 0))


def train_short(run: Run, name: str, part: float, *, batch: float = 1.0, rank: int = 0) -> Model:
    """The start of the base's training after `part` of its examples, drawn from retain.

    name: the stage of the training, under which the notes have what it took. batch: batches, as a share of the base's.
    rank: of low-rank adapters that learn in place of all weights; 0 for none. The manifest must be known
    (`check_retrainable`).
    """
    manifest = run.context.manifest
    assert manifest is not None, "check_retrainable refuses a model without one"
    budget = budget_of(manifest)
    size = max(1, round(batch * (budget.batch_size or 1)))
    steps = part * (budget.steps or 0) / batch
    if budget.epochs is not None:
        steps = part * budget.epochs * len(manifest["hashes"]) / size
    own = budget.model_copy(update={"epochs": None, "steps": math.ceil(steps), "batch_size": size})
    model = again(manifest, run.model)
    model.module.to(next(run.model.module.parameters()).device)
    training = plain_training("retain")
    if rank:
        training = dataclasses.replace(training, weights=lora(rank=rank, lora_alpha=2 * rank))
    context = run.context.child(name, budget=own, watch=None, manifest=None)
    training(model, {"retain": run.splits["retain"]}, context)
    return model
