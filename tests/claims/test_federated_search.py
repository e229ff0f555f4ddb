"""Networks that clients with unlike digits find for themselves in a supernet which they train together.

Rows, skew, pull and rounds were looked at on seeds 100 and 101.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.data.clients import Placing, clients_of
from expunge.data.worlds import splits
from expunge.methods._rounds import Local, local_budget
from expunge.methods.objective import plain_training
from expunge.methods.trainers import spider
from expunge.methods.training import BESIDE
from expunge.models.build import fresh
from expunge.models.open import open_model
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
ROWS, ROUNDS, PASSES = 240, 16, 2
SUPERNET = {"factory": "expunge.models.networks:Supernet", "arguments": {"width": 8}}


def accuracy(model: Model, rows: Sequence[Example]) -> float:
    return float(figures(model, rows)["accuracy"])


def size(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.module.parameters())


def measured(seed: int, folder: Path) -> dict[str, float]:
    """Mean accuracy over the clients, each on unseen rows that the deal gives it; and the share of the weights."""
    dealt = {"partition": "dirichlet", "count": 4, "alpha": 0.3, "seed": seed}
    rows, placing = splits("digits", seed), Placing.of(dealt, "clients")
    data = rows["train"][:ROWS]
    clients, unseen = clients_of(data, placing), clients_of(rows["test"] + rows["holdout"], placing)
    budget = Budget(batch_size=16, learning_rate=0.005)
    model, context = fresh(SUPERNET, [], seed), Context(budget, folder / "spider", seed, "train")
    spider.train(model, data, context, clients=dealt, rounds=ROUNDS, local=PASSES)
    told = context.notes["outcome"]["federation"]["own"]
    found: dict[str, list[float]] = {"supernet": [], "own": [], "alone": [], "share": []}
    alone, passes = local_budget(budget, Local(epochs=ROUNDS * PASSES)), plain_training()
    for i, name in enumerate(name for name in clients if name in unseen):
        own = open_model(str(folder / "spider" / BESIDE / told[name]["folder"]))
        by_itself = fresh(SUPERNET, [], seed)
        passes(by_itself, {"retain": clients[name]}, Context(alone, folder / f"alone-{i}", seed, "alone"))
        by_itself.module.eval()
        for kind, one in (("supernet", model), ("own", own), ("alone", by_itself)):
            found[kind].append(accuracy(one, unseen[name]))
        found["share"].append(size(own) / size(model))
    return {kind: float(np.mean(values)) for kind, values in found.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_clients_networks_read_their_digits_better_than_the_common_supernet(seed: int, tmp_path: Path) -> None:
    """240 digits at four clients, dealt out at a concentration of .3, 16 rounds: a client's own network has less than
    two thirds of the supernet's weights and reads its digits better, in the mean over clients by more than a point. No
    gain over clients alone shows: one that trains the whole supernet by itself for as many passes is not more than 6
    points better, and has been better on the seeds that were looked at."""
    found = measured(seed, tmp_path)
    print(seed, found)
    assert found["share"] < 2 / 3, found
    assert found["own"] > found["supernet"] + 0.01 and found["own"] > found["alone"] - 0.06, found
