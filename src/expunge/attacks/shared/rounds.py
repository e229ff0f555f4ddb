"""The record of a federation as attacks read it: its rounds, the clients that leave, and losses under kept weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.evaluation import reading
from expunge.evaluation.attack import Target
from expunge.evaluation.scores import NotMeasured
from expunge.methods.record import Kept, record_of
from expunge.methods.training import client_in
from expunge.training import checkpoint
from expunge.training.updates import State


def sequence_of(target: Target) -> Sequence[Kept]:
    """The rounds that the server kept, oldest first. Raises NotMeasured where they are no sequence."""
    kept = record_of(target.model)
    if len(kept) < 2:
        raise NotMeasured("the server kept no sequence of rounds (train with history: all)")
    return kept


def leaving_clients(target: Target) -> set[str]:
    """The names of the clients that hold the forgotten rows; none where the manifest does not tell."""
    holder = client_in(target.manifest)
    return {str(holder(row)) for row in target.forget} if holder else set()


def losses(model: Model, weights: State, *sides: Sequence[Example]) -> np.ndarray:
    """[rows of all sides, in turn] NLL of each row, in nats, under these weights, which stay in the model."""
    checkpoint.restore(model.module, weights, "")
    found = [reading.read(model, "forget", rows, {"nll"}, cache=False).nll_N for rows in sides]
    return np.concatenate([np.asarray(one) for one in found])
