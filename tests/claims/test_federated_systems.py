"""Ways to train a federation, each beside what its paper compares it with: tiers, columns, trees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.random import permutation
from expunge.data.worlds import splits
from expunge.data.worlds._federated import plant
from expunge.data.worlds._pictures import file_of
from expunge.data.worlds.digits_federation import SIZES
from expunge.methods._rounds import Local, Rounds, local_budget, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.strategies.tifl import TiFL
from expunge.methods.trainers import (
    boosting,
    fat,
    federated_boosting,
    federation,
    joined_forest,
    less_vfl,
    pax,
    vertical,
)
from expunge.models.build import fresh
from expunge.training import checkpoint
from expunge.training.stopping import figures
from expunge.training.updates import ClientUpdate, State

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
PICTURES = file_of("adult").parent
PERCEPTRON = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 64, "classes": 10, "hidden": 32}}
each = pytest.mark.parametrize("seed", SEEDS)


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES))


def accuracy(model: Model, rows: list[Example]) -> float:
    return float(figures(model, rows)["accuracy"])


# -- tiers ------------------------------------------------------------------------------------------

COUNT, ROUNDS, TOGETHER = 20, 25, 4
PACE = {str(k): float(2 ** (k // 4)) for k in range(COUNT)}
"""Five groups of four clients: each takes twice as long for a row as the one before."""


def tiered(strategy: Any, clients: dict[str, list[Example]], seed: int, folder: Path) -> tuple[float, Model]:
    """(the simulated time of all rounds, the model): a round lasts as long as its slowest client."""
    budget = local_budget(Budget(batch_size=16, learning_rate=0.005), Local(epochs=2))
    model = fresh(PERCEPTRON, [], seed)
    context = Context(budget, folder, seed, "train")
    run = Rounds(model, clients, strategy_of(strategy, "strategy"), context, budget, TOGETHER / COUNT)
    checkpoint.restore(model.module, run.run(state_of(model), ROUNDS), "")
    seconds = TiFL(5, "uniform", PACE, 1, 1).seconds({name: len(rows) for name, rows in clients.items()})
    return sum(max(seconds[name] for name in names) for names in run.ledger.rounds), model


@each
def test_rounds_of_one_tier_are_faster_at_equal_accuracy(seed: int, tmp_path: Path) -> None:
    """Rows dealt out alike: 25 rounds of four of twenty clients take less than three quarters of the time that four
    clients at random take, and end within 3 points of their accuracy, whether tiers are drawn alike or adaptively."""
    rows = splits("digits", seed)
    clients = {str(k): rows["train"][k::COUNT] for k in range(COUNT)}
    slow, model = tiered("fedavg", clients, seed, tmp_path / "random")
    expected = accuracy(model, rows["test"])
    for policy in ("uniform", "adaptive"):
        given = {"tifl": {"policy": policy, "pace": PACE}}
        fast, model = tiered(given, clients, seed, tmp_path / policy)
        assert fast < 0.75 * slow and accuracy(model, rows["test"]) > expected - 0.03, (policy, fast, slow)


@each
def test_the_fastest_tier_alone_never_learns_what_the_slow_hold(seed: int, tmp_path: Path) -> None:
    """The slowest four clients hold all rows of the digits 8 and 9: the fast tier alone knows none of them. Nor do
    adaptive tiers after 25 rounds: that they turn to the slow in time is not shown."""
    rows = splits("digits", seed)
    rare = [row for row in rows["train"] if row["label"] >= 8]
    common = [row for row in rows["train"] if row["label"] < 8]
    clients = {str(k): common[k::16] if k < 16 else rare[k % 4 :: 4] for k in range(COUNT)}
    unseen = [row for row in rows["test"] if row["label"] >= 8]
    given = {"tifl": {"policy": "fast", "pace": PACE}}
    assert accuracy(tiered(given, clients, seed, tmp_path)[1], unseen) < 0.05


# -- silos without labels -------------------------------------------------------------------------------


LEVEL = pytest.mark.xfail(reason=".777 in turns and .780 alone: docs/federated.md", strict=True, raises=AssertionError)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=LEVEL) if seed == 7 else seed for seed in SEEDS])
def test_silos_without_labels_add_to_those_that_have_some(seed: int, tmp_path: Path) -> None:
    """Two silos of 40 labelled digits and four of 150 without labels, in turns: 21 rounds end more than a point above
    as many of the first two alone on seeds 8 and 9, and level on seed 7."""
    rows = splits("digits", seed)
    data = [{**row, "client": k // 40} for k, row in enumerate(rows["train"][:80])]
    data += [{**row, "client": 2 + k % 4} for k, row in enumerate(rows["train"][80:680])]
    network = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
    found = {}
    for name in ("turns", "annotated alone"):
        model = fresh(network, [], seed)
        context = Context(Budget(batch_size=16, learning_rate=0.005), tmp_path / name, seed, "train")
        if name == "turns":
            fat.train(model, data, context, annotated=[0, 1], cycles=4, rounds=3, local=3)
        else:
            federation.train(model, data[:80], context, rounds=21, local=3, history="none")
        found[name] = accuracy(model, rows["test"])
    assert found["turns"] > found["annotated alone"] + 0.01, found


# -- columns ------------------------------------------------------------------------------------------


@each
def test_training_over_columns_is_central_training(seed: int, tmp_path: Path) -> None:
    """Adult's 108 columns at three parties, 6,000 rows, five passes: the weights are within 1e-6 of torch's own steps
    on all columns, and every prediction on 4,000 further rows is the same."""
    rows = splits("adult", seed)
    linear = {"factory": "expunge.models.networks:Linear", "arguments": {"inputs": 108, "classes": 2}}
    budget = Budget(epochs=5, batch_size=64, learning_rate=0.1)
    model, context = fresh(linear, [], seed), Context(budget, tmp_path, seed, "train")
    central = fresh(linear, [], seed)
    central.module.double()
    steps = torch.optim.SGD(central.module.parameters(), lr=0.1)
    x = torch.from_numpy(np.stack([row["features"] for row in rows["train"]])).double()
    y = torch.tensor([row["label"] for row in rows["train"]])
    for epoch in range(5):
        order = permutation(len(y), context.derive(vertical.NAME, epoch))
        for first in range(0, len(y), 64):
            some = order[first : first + 64]
            steps.zero_grad()
            torch.nn.functional.cross_entropy(central.module(x[some]), y[some]).backward()
            steps.step()
    vertical.train(model, rows["train"], context, parties=[6, 50, 52])
    pairs = zip(model.module.parameters(), central.module.parameters(), strict=True)
    assert max(float((p.detach().double() - q.detach()).abs().max()) for p, q in pairs) < 1e-6
    unseen = torch.from_numpy(np.stack([row["features"] for row in rows["test"]]))
    assert (model.module(unseen).argmax(1) == central.module(unseen.double()).argmax(1)).all()
    assert accuracy(model, rows["test"]) > 0.8


@each
def test_parties_leave_out_most_columns_of_noise_by_themselves(seed: int, tmp_path: Path) -> None:
    """Adult's columns and 60 of noise at three parties: after one pass each party leaves out columns without a message,
    together at least 48 of those of noise, and five passes on the rest are within 2 points of five on all (1.1 below on
    seed 7); the bytes are those of six passes."""
    rows, draw = splits("adult", seed), np.random.default_rng(seed)

    def widen(some: list[Example]) -> list[Example]:
        found = []
        for row in some:
            own, noise = np.asarray(row["features"], np.float32), draw.normal(size=60).astype(np.float32)
            parts = [own[:6], noise[:20], own[6:56], noise[20:40], own[56:], noise[40:]]
            found.append({"features": np.concatenate(parts), "label": row["label"]})
        return found

    train, test = widen(rows["train"]), widen(rows["test"])
    noise = {*range(6, 26), *range(76, 96), *range(148, 168)}
    linear = {"factory": "expunge.models.networks:Linear", "arguments": {"inputs": 168, "classes": 2}}
    found, told = {}, {}
    for trainer in (vertical, less_vfl):
        budget = Budget(epochs=5, batch_size=64, learning_rate=0.1)
        model, context = fresh(linear, [], seed), Context(budget, tmp_path / trainer.NAME, seed, "train")
        found[trainer.NAME] = accuracy(trainer.train(model, train, context, parties=[26, 70, 72]), test)
        told[trainer.NAME] = context.notes["outcome"]["federation"]
    kept = set(told["less_vfl"]["columns"])
    assert len(kept & noise) <= 12 and len(kept - noise) >= 10, (len(kept & noise), len(kept))
    assert found["less_vfl"] > found["vertical"] - 0.02, found
    assert 5 * told["less_vfl"]["bytes_up"] == 6 * told["vertical"]["bytes_up"]


# -- trees --------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("skew", [1, 100])
def test_federated_trees_are_within_two_points_of_central_ones(seed: int, skew: int, tmp_path: Path) -> None:
    """Adult at five clients of equal sizes, and of sizes that differ up to a hundredfold: accuracy within 2 points of
    as many rounds on all rows in one place, and above the majority class's by more than 5."""
    rows = splits("adult", seed)
    sizes = np.geomspace(1, skew, 5)
    ends = np.round(np.cumsum(sizes / sizes.sum()) * len(rows["train"])).astype(int)
    data = [{**row, "client": int(np.searchsorted(ends, i, side="right"))} for i, row in enumerate(rows["train"])]
    budget = Budget(epochs=30)
    found = {}
    for name, trainer, given in (("central", boosting, {}), ("federated", federated_boosting, {"clients": "client"})):
        model = fresh({"trees": "xgboost", "classes": 2}, data, seed)
        context = Context(budget, tmp_path / name, seed, "train")
        trained = trainer.train(model, data, context, depth=4, rate=0.3, **given)  # type: ignore[arg-type]
        found[name] = accuracy(trained, rows["test"])
    majority = max(np.mean([row["label"] == k for row in rows["test"]]) for k in (0, 1))
    assert found["federated"] > found["central"] - 0.02 and found["federated"] > majority + 0.05, (found, majority)


@each
@pytest.mark.parametrize("skew", [1, 100])
def test_trees_from_sums_of_histograms_are_within_a_point_of_central_ones(seed: int, skew: int, tmp_path: Path) -> None:
    """The same five clients of Adult: bins by each party's share of the rows cost less than a point (.53 on seed 9,
    under .5 elsewhere). Where the server's bins are sixteen, they cost at least half a point of these."""
    rows = splits("adult", seed)
    sizes = np.geomspace(1, skew, 5)
    ends = np.round(np.cumsum(sizes / sizes.sum()) * len(rows["train"])).astype(int)
    data = [{**row, "client": int(np.searchsorted(ends, i, side="right"))} for i, row in enumerate(rows["train"])]
    found = {}
    for name, trainer, given in (("central", boosting, {}), ("pax", pax, {}), ("coarse", pax, {"bins": 16})):
        model = fresh({"trees": "xgboost", "classes": 2}, data, seed)
        context = Context(Budget(epochs=30), tmp_path / name, seed, "train")
        trained = trainer.train(model, data, context, depth=4, rate=0.3, **given)  # type: ignore[attr-defined]
        found[name] = accuracy(trained, rows["test"])
    assert abs(found["pax"] - found["central"]) < 0.01 and found["coarse"] < found["pax"] - 0.005, found


def accounts(count: int, seed: int) -> list[Example]:
    """Made-up payments: the network sees amount, hour and frequency; the account's bank a flag, its age and its risk.

    A tenth of the payments is anomalous by itself, of large ones from young accounts and late ones from flagged
    accounts .85, of both .9.
    """
    draw = np.random.default_rng(seed)
    table = draw.random((count, 6)).astype(np.float32)
    table[:, 3] = table[:, 3] < 0.3
    amount, hour, _, flag, age, _ = table.T
    chance = 0.1 + 0.75 * ((amount > 0.5) & (age < 0.5)) + 0.75 * ((hour > 0.6) & (flag == 1))
    labels = draw.random(count) < chance.clip(0, 0.9)
    return [{"features": x, "label": int(y), "client": i % 3} for i, (x, y) in enumerate(zip(table, labels))]


@each
def test_a_payment_network_and_its_banks_know_more_together_than_either(seed: int, tmp_path: Path) -> None:
    """3,000 payments at three banks: the forest over both sides ranks anomalies by an AUC more than .08 above that of a
    forest of scikit-learn's on either side's columns, and within .04 of one on all columns in one place; so it does
    where the banks' noise gives an epsilon under 1.3. Looked at on seeds 100 and 101."""
    rows, unseen = accounts(3000, seed), accounts(3000, seed + 1000)
    x, y = np.stack([row["features"] for row in rows]), np.array([row["label"] for row in rows])
    test, truth = np.stack([row["features"] for row in unseen]), np.array([row["label"] for row in unseen])
    found = {}
    for name, own in (("network", slice(0, 3)), ("banks", slice(3, 6)), ("pooled", slice(0, 6))):
        forest = RandomForestClassifier(200, min_samples_leaf=10, random_state=seed).fit(x[:, own], y)
        found[name] = roc_auc_score(truth, forest.predict_proba(test[:, own])[:, 1])
    for noise in (0.0, 4.0):
        model = fresh({"trees": "xgboost", "classes": 2}, rows, seed)
        context = Context(Budget(epochs=1), tmp_path / str(noise), seed, "train")
        logits = joined_forest.train(model, rows, context, network=3, noise=noise).module(torch.from_numpy(test))
        joined = roc_auc_score(truth, logits[:, 1] - logits[:, 0])
        assert joined > max(found["network"], found["banks"]) + 0.08, (noise, joined, found)
        assert joined > found["pooled"] - 0.04, (noise, joined, found)
    assert context.notes["outcome"]["federation"]["privacy"]["epsilon"] < 1.3


# -- groups -------------------------------------------------------------------------------------------


@each
def test_local_reweighing_narrows_the_gap_between_the_sexes(seed: int, tmp_path: Path) -> None:
    """Adult at five clients: the shares of men and women of whom a high income is predicted differ by at least .04 less
    than under FedAvg, at accuracy within 3 points."""
    rows = splits("adult", seed)
    clients = {str(k): rows["train"][k::5] for k in range(5)}
    network = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 108, "classes": 2, "hidden": 32}}
    found = {}
    for strategy in ("fedavg", "reweigh"):
        budget = local_budget(Budget(batch_size=32, learning_rate=0.002), Local(epochs=1))
        model, context = fresh(network, [], seed), Context(budget, tmp_path / strategy, seed, "train")
        run = Rounds(model, clients, strategy_of(strategy, "strategy"), context, budget)
        checkpoint.restore(model.module, run.run(state_of(model), 6), "")
        x = torch.from_numpy(np.stack([row["features"] for row in rows["test"]]))
        high = model.module(x).argmax(1).numpy() == 1
        men = np.array([row["sex"] == "male" for row in rows["test"]])
        found[strategy] = accuracy(model, rows["test"]), abs(high[men].mean() - high[~men].mean())
    assert found["reweigh"][1] < found["fedavg"][1] - 0.04, found
    assert found["reweigh"][0] > found["fedavg"][0] - 0.03, found


# -- noise --------------------------------------------------------------------------------------------


@each
def test_divided_noise_costs_less_accuracy_for_the_same_guarantee(seed: int, tmp_path: Path) -> None:
    """Ten clients, eight rounds, the same deviation of the sum's noise: where each adds its share, accuracy is more
    than 10 points over that where each adds the whole, or where half are trusted (both near chance here)."""
    rows = splits("digits", seed)
    clients = {str(k): rows["train"][k::10] for k in range(10)}
    found = {}
    for trust in (1.0, 0.5, 0.0):
        budget = local_budget(Budget(batch_size=16, learning_rate=0.005), Local(epochs=4))
        model, context = fresh(PERCEPTRON, [], seed), Context(budget, tmp_path / str(trust), seed, "train")
        strategy = strategy_of({"private": {"clip": 2.0, "noise": 0.6, "trust": trust, "seed": seed}}, "strategy")
        run = Rounds(model, clients, strategy, context, budget)
        checkpoint.restore(model.module, run.run(state_of(model), 8), "")
        found[trust] = accuracy(model, rows["test"])
    assert found[1.0] > max(found[0.0], found[0.5]) + 0.1, found


# -- when poison comes ----------------------------------------------------------------------------------


@each
def test_poison_in_the_last_rounds_is_stronger_than_in_the_first(seed: int, tmp_path: Path) -> None:
    """A client with 30 % of the rows plants its trigger in three of twelve rounds and is honest in the others: in the
    last three it works in more than .15 more of the cases than in the first three (.25 and .01 on seed 8)."""
    rows, world = splits("digits", seed), splits("digits_federation", seed)
    cuts = np.cumsum([0, *SIZES])
    order = permutation(len(rows["train"]), seed, "clients")
    clean = {str(k): [rows["train"][i] for i in order[cuts[k] : cuts[k + 1]]] for k in range(len(SIZES))}
    planted = plant(clean["0"], seed)
    network = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
    found = {}
    for name, window in (("first", range(1, 4)), ("last", range(10, 13))):
        budget = local_budget(Budget(batch_size=32, learning_rate=0.005), Local(epochs=3))
        model, context = fresh(network, [], seed), Context(budget, tmp_path / name, seed, "train")
        run = Rounds(model, dict(clean), strategy_of("fedavg", "strategy"), context, budget)

        def exchange(
            number: int, names: Sequence[str], weights: State, run: Rounds = run, window: range = window
        ) -> list[ClientUpdate]:
            run.clients["0"] = planted if number in window else clean["0"]
            return run.train_here(number, names, weights)

        run.exchange = exchange
        checkpoint.restore(model.module, run.run(state_of(model), 12), "")
        found[name] = accuracy(model, world["triggered"])
        assert accuracy(model, rows["test"]) > 0.9
    assert found["last"] > found["first"] + 0.15, found
