"""The settings of local training from one message of each client: what each lost with each setting on its own rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from expunge.core.request import parse
from expunge.data.clients import hold_out
from expunge.methods._rounds import Local, Rounds, local_budget
from expunge.methods._strategy import Strategy
from expunge.training import checkpoint
from expunge.training.stopping import figures
from expunge.training.updates import State

WORST = 20.0
"""Nats that a loss counts as at most: one that diverged says no more than that."""
TREES = 100
"""Of a regressor."""


class Search(BaseModel):
    """Settings to choose from. passes: of a client over its rows with each, times the setting's own.

    surrogate: what is fitted to the losses: one regressor to all clients' (`pooled`), or one to each client's, of which
    the mean or the largest counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: list[Annotated[int, Field(ge=1, le=1000)]] = [1]
    sgd: list[Annotated[float, Field(gt=0, le=10)]] = Field(min_length=1)
    passes: Annotated[int, Field(ge=1, le=100)] = 3
    surrogate: Literal["pooled", "mean", "max"] = "pooled"

    @property
    def candidates(self) -> list[Local]:
        """All settings, in a fixed order."""
        return [Local(epochs=epochs, sgd=rate) for epochs, rate in itertools.product(self.epochs, self.sgd)]


def search_of(value: Any, where: str) -> Search | None:
    """The search that `local` asks for by a list of rates; None where it names one setting. Raises BadInput."""
    several = isinstance(value, Mapping) and isinstance(value.get("sgd"), list)
    return parse(Search, value, where) if several else None


@dataclass(frozen=True)
class Pair:
    """A client's loss with a setting, in nats on rows that it held out."""

    client: str
    local: Local
    loss: float


def pairs_of(run: Rounds, search: Search, weights: State) -> list[Pair]:
    """The clients' only messages: each trains by itself from these weights with each setting."""
    found = []
    for k, (name, rows) in enumerate(run.clients.items()):
        seen, unseen = hold_out(rows, run.context.derive("single shot", name))
        for i, local in enumerate(search.candidates):
            budget = local_budget(run.budget, local.model_copy(update={"epochs": local.epochs * search.passes}))
            alone = replace(run, clients={name: seen}, strategy=Strategy(), budget=budget, exchange=None)
            alone.context = run.context.child(f"shot-{k}-{i}", draws=f"shot-{i}")  # a folder of its own
            checkpoint.restore(run.model.module, alone.train_client(0, name, weights).weights, "")
            run.model.module.eval()
            loss = figures(run.model, unseen)["nll"]
            found.append(Pair(name, local, min(loss, WORST) if math.isfinite(loss) else WORST))
    checkpoint.restore(run.model.module, weights, "")
    return found


def choose(pairs: Sequence[Pair], search: Search, seed: int) -> Local:
    """The setting with the lowest loss of the surrogate, which is fitted to the pairs; the first of equal ones.

    FLoRA (arXiv:2112.08524, 2202.08338; from a description): random forests on the logarithms of the settings.
    """
    from sklearn.ensemble import RandomForestRegressor  # a second, and plans start here

    by_client: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_client.setdefault("" if search.surrogate == "pooled" else pair.client, []).append(pair)
    wanted = np.array([_place(local) for local in search.candidates])
    losses = []
    for own in by_client.values():
        forest = RandomForestRegressor(TREES, random_state=seed % 2**32)
        forest.fit([_place(pair.local) for pair in own], [pair.loss for pair in own])
        losses.append(forest.predict(wanted))
    surface = np.max(losses, 0) if search.surrogate == "max" else np.mean(losses, 0)
    return search.candidates[int(np.argmin(surface))]


def _place(local: Local) -> list[float]:
    return [math.log2(local.epochs), math.log10(local.sgd or 1.0)]
