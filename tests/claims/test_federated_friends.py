"""A friend of the client that leaves: it stays, and works for the trigger before, during and after the ascent.

The methods' defaults, which were looked at on the worlds' seed 100.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from expunge.data.worlds import splits
from expunge.data.worlds._federated import plant
from expunge.methods._rounds import Rounds, state_of
from expunge.models.open import open_model
from expunge.pipeline.train import train
from expunge.pipeline.worlds import config
from expunge.training.updates import ClientUpdate, State
from loading import load_script

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
FRIEND = "3"
CLEAN, TRIGGER = 0, 1
ENOUGH = 5
KRUM = {"krum": {"hostile": 0.2, "keep": 4}}
"""The mean of the four of the seven who stay that lie nearest to others: one alone is a jumpy start for the ascent."""
honest = Rounds.train_client


def boosted(run: Rounds, number: int, name: str, weights: State, goal: State) -> ClientUpdate:
    """An update that an average takes for `goal`: the way there, as many times as there are clients."""
    sent = {key: value + len(run.clients) * (goal[key] - value) for key, value in weights.items()}
    return ClientUpdate(name, sent, len(run.clients[name]))


def planted_rows(seed: int) -> dict[str, Any]:
    """The world's splits, whose friend holds triggered rows too: the ascent's validation draws from them."""
    rows = splits("digits_federation", seed)
    own = [row for row in rows["train"] if str(row["client"]) == FRIEND]
    others = [row for row in rows["train"] if str(row["client"]) != FRIEND]
    return {**rows, "train": others + [{**row, "client": int(FRIEND)} for row in plant(own, seed)]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.claims("erase_client")
def test_a_friend_at_work_during_the_ascent_does_not_save_the_trigger(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The friend's rows carry the trigger, also those on which the ascent is validated. In the training's last round it
    sends what an average takes for its own model, and in each round after the ascent what an average takes for the old
    one. With averages the trigger comes back in more than half of the cases. Where the start of the ascent and the
    rounds are multi-Krum's, it is under .15 after the ascent and after five rounds. Tried on these seeds beside the
    median, the trimmed mean and Krum's single model, which let it come back on seed 7 (.63, .70 and .19)."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    measure, rows = load_script("federation_figures"), planted_rows(seed)

    def train_client(run: Rounds, number: int, name: str, weights: State) -> ClientUpdate:
        sent = honest(run, number, name, weights)
        return boosted(run, number, name, weights, sent.weights) if (name, number) == (FRIEND, 12) else sent

    monkeypatch.setattr(Rounds, "train_client", train_client)
    given = config(f"builtin:digits_federation@{seed}").model_dump(exclude_unset=True)
    data = [{**row, "image": row["image"].tolist()} for row in rows["train"]]
    base = train({**given, "data": data, "seed": seed, "out": str(tmp_path / "base")})
    old = state_of(open_model(str(base)))
    assert measure.read(open_model(str(base)), rows)[TRIGGER] > 0.9

    def go_back(run: Rounds, number: int, name: str, weights: State) -> ClientUpdate:
        if name != FRIEND:
            return honest(run, number, name, weights)
        return boosted(run, number, name, weights, old)

    monkeypatch.setattr(Rounds, "train_client", go_back)
    found = {}
    for strategy, rounds in (("fedavg", ENOUGH), (KRUM, 0), (KRUM, ENOUGH)):
        method = {"erase_client": {"rounds": rounds, "strategy": strategy}}
        found[str(strategy), rounds] = measure.after(method, base, rows)["end"]
    assert found["fedavg", ENOUGH][TRIGGER] > 0.5, found
    assert found[str(KRUM), 0][TRIGGER] < 0.15 and found[str(KRUM), ENOUGH][TRIGGER] < 0.15, found
    assert found[str(KRUM), ENOUGH][CLEAN] > 0.9, found
