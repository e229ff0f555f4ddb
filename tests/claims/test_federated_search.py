"""Networks that clients with unlike digits find for themselves in a supernet which they train together.

Rows, skew, pull, rounds and drops were looked at on seeds 100 and 101; what is asserted, on 7, 8 and 9 too.
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
def test_a_client_s_network_is_near_the_better_of_the_supernet_and_of_training_alone(seed: int, tmp_path: Path) -> None:
    """240 digits at four clients, dealt out at a concentration of .3, 16 rounds: a client's own network, with less than
    two thirds of the supernet's weights, reads its digits better than the worse of the supernet and of a supernet that
    the client trains by itself for as many passes, and not more than 4 points worse than the better, in the mean over
    the clients. Which of the two is better differs by seed (the supernet on 7, training alone on 8 and 9), and a gain
    over both shows on 9 alone."""
    found = measured(seed, tmp_path)
    assert found["share"] < 2 / 3, found
    assert found["own"] > min(found["supernet"], found["alone"]), found
    assert found["own"] > max(found["supernet"], found["alone"]) - 0.04, found
