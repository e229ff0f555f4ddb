"""Inversion of a client's update: rows that a federation's server can read off it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.attacks.shared.membership import compare
from expunge.attacks.shared.rounds import leaving_clients
from expunge.core.card import AttackCard, Example
from expunge.evaluation import intervals
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import Figure, NotMeasured
from expunge.methods.record import Kept, record_of
from expunge.models.history import FEDERATED

CARD = AttackCard(
    "Rows read off a client's updates",
    paper="arXiv:2003.14053",
    equation="proposition 3.1",
    adversary="weights, all that a federation's server kept of its rounds",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=(FEDERATED, "labels"),
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("likeness", "chance"),
    passes=1,
    means="A first layer's change, divided by that of its bias, is a mean of the client's rows, for each unit another "
    "one: of a client with few rows, single ones. The AUC says how much better these means match the forgotten rows "
    "than unseen ones; `likeness` is the mean correlation of a forgotten row with the best match, `chance` that of an "
    "unseen row. It needs a network whose first layer is linear, and a server that kept what clients sent (`history: "
    "last` or `all`): encrypted sums leave nothing to read, and a model after a departure has no record.",
)
LEAST = 1e-9
"""A change of a bias below which nothing is divided by it."""


def inverted() -> Attack:
    """AUC of forget against holdout by the best correlation with a row read off the leaving clients' updates.

    Each unit of the first layer gives (change of its weights) / (change of its bias): exactly the row where a client
    took one step on one row (Geiping et al. 2020), a weighted mean of its rows where it took more. No optimisation
    follows, as it does in the paper.
    """

    def attack(target: Target) -> Found:
        forget, holdout = target.forget, target.splits["holdout"]
        leaving = leaving_clients(target)
        name = first_layer(target.model.module)
        read = rows_in(record_of(target.model), leaving, name)
        if not len(read):
            raise NotMeasured("the server kept no update of the clients that hold these rows")
        ours, theirs = (likeness(inputs(target, rows), read) for rows in (forget, holdout))
        figure = compare(ours, theirs, f"{len(read)} means read off {name}", rows=(forget, holdout))
        means = [Figure(*intervals.mean(one, 0.0, 1.0), n=len(one)) for one in (ours, theirs)]
        return Found(figure, more={"likeness": ("share", "lower", means[0]), "chance": ("share", "lower", means[1])})

    return attack


def first_layer(module: nn.Module) -> str:
    """The name of the first layer that has weights. Raises NotMeasured where it is not linear with a bias."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) and part.bias is not None:
            return name
        if any(True for _ in part.parameters(recurse=False)):
            break
    raise NotMeasured("the network's first layer is not linear with a bias")


def rows_in(kept: Sequence[Kept], clients: set[str], name: str) -> np.ndarray:
    """[R, D] what the units of the layer give in each round, of these clients' updates."""
    found: list[torch.Tensor] = []
    head = f"{name}." if name else ""
    for one in kept:
        for update in one.updates:
            if update.client in clients:
                moved_UD, moved_U = (
                    update.weights[f"{head}{part}"].double() - one.before[f"{head}{part}"].double()
                    for part in ("weight", "bias")
                )
                found.append((moved_UD / moved_U[:, None])[moved_U.abs() > LEAST])
    return torch.cat(found).numpy() if found else np.zeros((0, 0))


def inputs(target: Target, rows: Sequence[Example]) -> np.ndarray:
    """[N, D] the rows as the network reads them, flat. Raises NotMeasured where they are not one array each."""
    batch: Any = target.model.collate(rows)
    found = next((v for v in batch.inputs.values() if isinstance(v, torch.Tensor) and v.is_floating_point()), None)
    if found is None:
        raise NotMeasured("the rows are not arrays of numbers")
    return np.asarray(found.reshape(len(rows), -1).double().cpu().numpy())


def likeness(rows_ND: np.ndarray, read_RD: np.ndarray) -> np.ndarray:
    """[N] each row's best correlation with what was read, in absolute value: the sign of a mean is not known."""
    if rows_ND.shape[1] != read_RD.shape[1]:
        raise NotMeasured("the first layer does not read the rows as they are")
    return np.asarray(np.abs(_centre(rows_ND) @ _centre(read_RD).T).max(1))


def _centre(found: np.ndarray) -> np.ndarray:
    """Rows less their mean, of length 1."""
    less = found - found.mean(1, keepdims=True)
    return np.asarray(less / np.maximum(np.linalg.norm(less, axis=1, keepdims=True), 1e-12))
