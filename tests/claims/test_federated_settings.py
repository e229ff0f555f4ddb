"""Settings of local training from one message of each client, beside a whole federation with each of them.

Rates, batches and networks were looked at on seeds 100 to 103.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.data.clients import Placing, clients_of
from expunge.data.worlds import splits
from expunge.data.worlds._pictures import file_of
from expunge.methods._rounds import Local, Rounds, local_budget, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.single_shot import Search, choose, pairs_of
from expunge.models.build import fresh
from expunge.training import checkpoint
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
PICTURES = file_of("adult").parent
CLIENTS, ROUNDS = 6, 6
WIDE = Search(epochs=[1, 2], sgd=[0.001, 0.01, 0.03, 0.1, 0.3, 1.0])
NARROW = Search(epochs=[1, 2], sgd=[0.003, 0.03, 0.1, 0.3])


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES))


def measured(
    world: str, sizes: tuple[int, int], batch: int, search: Search, seed: int, folder: Path
) -> tuple[dict[Local, float], dict[str, float]]:
    """(setting -> accuracy of a federation with it on rows of nobody, surrogate -> that of the setting it chose).

    sizes: inputs and classes. Clients' rows are dealt out by a Dirichlet distribution of concentration 1.
    """
    rows = splits(world, seed)
    clients = clients_of(rows["train"], Placing(partition="dirichlet", count=CLIENTS, alpha=1.0, seed=seed))
    arguments = {"inputs": sizes[0], "classes": sizes[1], "hidden": 32}
    network: dict[str, Any] = {"factory": "expunge.models.networks:MLP", "arguments": arguments}

    def federation(local: Local, name: str) -> Rounds:
        budget = local_budget(Budget(batch_size=batch, learning_rate=0.005), local)
        context = Context(budget, folder / name, seed, "train")
        return Rounds(fresh(network, [], seed), clients, strategy_of("fedavg", "strategy"), context, budget)

    found = {}
    for i, local in enumerate(search.candidates):
        run = federation(local, str(i))
        checkpoint.restore(run.model.module, run.run(state_of(run.model), ROUNDS), "")
        found[local] = float(figures(run.model, rows["test"] + rows["holdout"])["accuracy"])
    run = federation(Local(), "shot")
    pairs = pairs_of(run, search, state_of(run.model))
    kinds = ("pooled", "mean")
    return found, {kind: found[choose(pairs, search.model_copy(update={"surrogate": kind}), seed)] for kind in kinds}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_single_shot_lands_within_a_point_of_the_best_of_the_grid(seed: int, tmp_path: Path) -> None:
    """Six clients of skewed rows of Adult: the federation with the setting that one message of each client leads to is
    within 1 % of the best of twelve federations, one with each setting, on 10,000 rows that no client has. The worst
    is more than 7 points below the best; the choice loses less than a tenth of that."""
    found, chosen = measured("adult", (108, 2), 32, WIDE, seed, tmp_path)
    best, worst = max(found.values()), min(found.values())
    print(f"best {best:.4f} worst {worst:.4f} chosen {chosen}")
    assert worst < best - 0.07, found
    for kind, accuracy in chosen.items():
        assert accuracy >= best - 0.01 and best - accuracy < 0.1 * (best - worst), (kind, accuracy, found)


FAR = pytest.mark.xfail(
    reason="4.6 points below: clients alone do best at a smaller rate, docs/federated.md",
    strict=True,
    raises=AssertionError,
)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=FAR) if seed == 9 else seed for seed in SEEDS])
def test_small_clients_of_few_classes_may_mislead_the_single_shot(seed: int, tmp_path: Path) -> None:
    """Six clients of skewed digits, some 180 rows each: within 1 % of the best of eight on seeds 7 and 8 alone."""
    found, chosen = measured("digits", (64, 10), 16, NARROW, seed, tmp_path)
    assert min(found.values()) < max(found.values()) - 0.1
    assert min(chosen.values()) >= max(found.values()) - 0.01, (chosen, found)
