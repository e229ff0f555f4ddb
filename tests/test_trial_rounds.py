"""Settings of local training from trial rounds: what the mean of the clients' models loses on rows held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.data.clients import hold_out
from expunge.data.worlds import splits
from expunge.methods._rounds import Local, Rounds, local_budget, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.single_shot import WORST, Search, pairs_of
from expunge.methods.trainers import federation
from expunge.models.build import fresh
from expunge.training import checkpoint
from expunge.training.stopping import figures
from expunge.training.updates import size_of

MODEL = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 64, "classes": 10, "hidden": 8}}
SEARCH = Search(sgd=[0.01, 0.3], trial=1)


def rounds(folder: Path, clients: dict[str, Any], local: Local | None = None) -> Rounds:
    budget = local_budget(Budget(batch_size=8), local or Local())
    context = Context(budget, folder, 0, "train")
    return Rounds(fresh(MODEL, [], 0), clients, strategy_of("fedavg", "s"), context, budget)


def clients() -> dict[str, Any]:
    found = splits("digits", 0)["train"]
    return {"a": found[:15], "b": found[15:40]}


def test_a_pair_is_the_loss_of_the_mean_after_a_round_on_what_the_client_held_out(tmp_path: Path) -> None:
    run = rounds(tmp_path / "search", clients())
    start = state_of(run.model)
    pairs = pairs_of(run, SEARCH, start)
    assert [(pair.client, pair.local.sgd) for pair in pairs] == [("a", 0.01), ("a", 0.3), ("b", 0.01), ("b", 0.3)]
    parts = {name: hold_out(rows, run.context.derive("single shot", name)) for name, rows in clients().items()}
    again = rounds(tmp_path / "by hand", {name: seen for name, (seen, _) in parts.items()}, Local(sgd=0.3))
    again.context = run.context.child("trial-1", folder=tmp_path / "by hand", notes={})
    checkpoint.restore(again.model.module, again.run(start, 1), "")
    for pair in pairs[1::2]:
        assert pair.loss == pytest.approx(figures(again.model, parts[pair.client][1])["nll"])
    size = size_of(start)
    assert run.ledger.bytes_up == 2 * 2 * size, "two settings, two clients"
    assert run.ledger.bytes_down == 2 * 2 * 2 * size, "the start, and the mean"


def test_a_setting_that_diverges_at_every_client_is_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*given: Any) -> Any:
        raise BadInput.of("trainer.federation", "round 1", "has no usable update", "look at the clients")

    monkeypatch.setattr(Rounds, "run", diverge)
    run = rounds(tmp_path, clients())
    assert [pair.loss for pair in pairs_of(run, SEARCH, state_of(run.model))] == [WORST] * 4


def test_a_federation_trains_with_the_setting_of_the_trial(tmp_path: Path) -> None:
    """A rate of 1e-6 learns nothing in a round, of .3 something: the manifest holds the choice."""
    data = [{**row, "client": name} for name, rows in clients().items() for row in rows]
    context = Context(Budget(batch_size=8), tmp_path, 0, "train")
    federation.train(fresh(MODEL, [], 0), data, context, rounds=1, local={"sgd": [1e-6, 0.3], "trial": 1})
    assert context.notes["outcome"]["federation"]["local"] == {"epochs": 1, "sgd": 0.3}
