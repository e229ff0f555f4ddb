"""Train a model again on a part of its rows, in short, to see what the part says of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core import cache, processes
from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Reporter, want_of
from expunge.data.rows import take
from expunge.evaluation.detection import Retrain
from expunge.methods.training import trainer_for
from expunge.models.build import again, budget_of, check_again
from expunge.models.passes import passes

NEVER = 2**31
"""Steps between checkpoints: so short a training starts anew."""


def retraining(model: Model, manifest: Mapping[str, Any], rows: Sequence[Example], reporter: Reporter) -> Retrain:
    """The function that trains the model of a manifest on some of the rows and reads all of them. Raises BadInput.

    From the model's own seed: on all its rows and with all epochs it is the model.
    """
    check_again(manifest, model)

    def retrain(keep_N: np.ndarray, share: float) -> np.ndarray:
        fresh = again(manifest, model)
        fresh.module.to(processes.device())
        chosen = manifest.get("exact") or manifest.get("trainer")
        with cache.scratch() as folder:
            context = Context(
                shorten(budget_of(manifest), share), folder, int(manifest["seed"]), "train", reporter=reporter
            )
            context.checkpoint_every = NEVER
            trained = trainer_for(chosen, fresh)(fresh, take(rows, np.flatnonzero(keep_N)), context)
        return class_log_probabilities(trained, rows)

    return retrain


def shorten(budget: Budget, share: float) -> Budget:
    """The budget with this share of its epochs, or of its steps."""
    epochs = None if budget.epochs is None else math.ceil(share * budget.epochs)
    steps = None if budget.steps is None else math.ceil(share * budget.steps)
    return budget.model_copy(update={"epochs": epochs, "steps": steps})


def class_log_probabilities(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N, C] log-probabilities of the classes of each row."""
    found: list[Any] = [None] * len(rows)
    for places, out in passes(model, rows, want_of({"logits"})):
        for i, logp_C in zip(places, out.logits_BTV[:, 0].double().log_softmax(-1).cpu().numpy(), strict=True):
            found[i] = logp_C
    return np.stack(found)
