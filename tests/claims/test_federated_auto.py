"""The method that the tool chooses where a client leaves a federation, against gold: MNIST, and a planted trigger.

Figures by seed: run with `-s`, it prints the rows of the table in docs/federated.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import expunge
from expunge.core.request import Request
from expunge.data.worlds._pictures import file_of

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "0,1,2").split(","))
PICTURES = file_of("mnist").parent


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_without_a_method_erases_the_client_and_its_trigger(seed: int, tmp_path: Path) -> None:
    """Clean accuracy within 3 points of the federation retrained without the client, the trigger under .15, where it
    was over .9, for less than a third of a retraining's tokens; the bars of the request stand in the verdict."""
    world = f"builtin:mnist_federation@{seed}"
    request = {
        "model": world,
        "data": f"{world}/train",
        "forget": {"client": 0},
        **{split: f"{world}/{split}" for split in ("holdout", "test")},
        "probes": {"triggered": f"{world}/triggered"},
        "budget": {"stop": "none"},
        "gold": "one",
        "accept": {"triggered.accuracy": "<= 0.1", "test.accuracy": ">= 0.96 * before"},
        "seed": seed,
        "out": str(tmp_path / "run"),
    }
    done = expunge.run(Request.parse(request))
    clean, trigger = (
        {role: done.scores[f"{split}_accuracy", role] or 0.0 for role in ("before", "after", "gold")}
        for split in ("test", "triggered")
    )
    cost = done.evidence["cost"]
    share = cost["tokens"] / cost["gold_tokens"]
    shown = " | ".join(f"{clean[role]:.3f} / {trigger[role]:.3f}" for role in ("before", "gold", "after"))
    tried = ", ".join(f"{trial['rung'] + 1}" for trial in done.evidence["trials"])
    print(f"| {seed} | {shown} | {share:.2f} | {tried} | {'passed' if done.passed else 'missed'} |")
    assert done.evidence["method"] == "erase_client"
    assert trigger["before"] > 0.9 and trigger["gold"] < 0.05
    assert trigger["after"] < 0.15 and clean["after"] >= clean["gold"] - 0.03
    assert share < 1 / 3
