"""Noise at the clients: steps by hand, the accountant against arithmetic, and epsilon in evidence and report.

Slow: Opacus is the extra `dp`, which `make nightly` installs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.worlds import splits
from expunge.methods import _noisy_training
from expunge.methods._noisy_training import Noise, epsilon_of, guarantee_of, rounds_by_client, train_noisily
from expunge.methods._rounds import state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.strategies.private import epsilon, secret_normal
from expunge.methods.trainers.federation import federation_of, local_of
from expunge.models.build import fresh
from expunge.models.manifest import read_manifest
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from expunge.training import checkpoint
from expunge.training.updates import ClientUpdate, State, distance
from expunge.workflows.run import run
from test_federation import MODEL, config, equal, rounds

NORMED = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8, "norm": "batch"}}
ROWS = 24
RATE = 0.5


def test_secret_noise_is_normal_and_new_each_time() -> None:
    """20,000 draws: no sign of another distribution than the standard normal one. Two strategies of the same seed draw
    alike unless the noise is secret."""
    drawn = secret_normal(torch.Size([100, 200]))
    assert drawn.dtype == torch.float64 and kstest(drawn.reshape(-1).numpy(), "norm").pvalue > 1e-6
    before, sent = {"w": torch.zeros(50)}, ClientUpdate("a", {"w": torch.ones(50)}, 3)
    for secret in (False, True):
        strategies = [strategy_of({"private": {"secret": secret}}, "s") for _ in range(2)]
        ends = [one.protect(before, sent, 1).weights["w"] for one in strategies]
        assert torch.equal(*ends) is not secret
    assert strategy_of({"private": {"secret": True}}, "s").guarantee(3)["secret"]


def test_an_ascent_without_noise_ends_a_client_s_guarantee(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of round 0 of a departure, which is the leaving client's, no epsilon is given for that client."""
    monkeypatch.setattr(_noisy_training, "epsilon_of", lambda noise, budget, stages: float(sum(n for _, n in stages)))
    training = {"facts": [{"round": 1, "updates": {"a": "", "b": ""}}]}
    departure = {"facts": [{"round": 0, "updates": {"b": ""}}, {"round": 1, "updates": {"a": ""}}]}
    sizes = {"a": 10, "b": 10}
    told = guarantee_of(Noise(), Budget(batch_size=5), [(sizes, training), (sizes, departure)])
    assert told["epsilon"] == {"a": 2.0}


def test_what_a_client_sent_in_vain_counts_too() -> None:
    account = {
        "facts": [{"round": number, "updates": {"a" if number else "c": ""}} for number in range(3)],
        "left_out": {"1": {"b": "sent w with values that are not finite"}, "2": {"b": "did not answer"}},
    }
    assert rounds_by_client(account) == {"a": 2, "b": 1}


def trained(noise: Noise, folder: Path, rows: Any, seed: int = 0, **budget: Any) -> tuple[State, State]:
    """(before, after) of a small perceptron, by SGD without a choice of rows: the batch takes all."""
    model = fresh(MODEL, [], 0)
    given = {"epochs": 1, "batch_size": len(rows), "optimizer": "sgd", "learning_rate": RATE, **budget}
    before = state_of(model)
    train_noisily(model, rows, Context(Budget(**given), folder, seed, "client"), noise)
    return before, state_of(model)


@pytest.mark.slow
def test_a_step_without_clip_and_noise_is_a_step_of_sgd(tmp_path: Path) -> None:
    """One step over all rows, the noise and the clip out of the way: the rate times the gradient of the mean loss."""
    rows = splits("digits", 0)["train"][:ROWS]
    before, after = trained(Noise(noise=1e-9, clip=1e6), tmp_path, rows)
    model = fresh(MODEL, [], 0)
    checkpoint.restore(model.module, before, "")
    model.forward(model.collate(rows)).nll.backward()
    for name, p in model.module.named_parameters():
        assert torch.allclose(after[name], before[name] - RATE * p.grad, atol=1e-3), name  # type: ignore[operator]


@pytest.mark.slow
def test_a_row_moves_a_step_by_no_more_than_the_clip(tmp_path: Path) -> None:
    """Each row's gradient is cut to .01, and the step divides their sum by the rows: all together move no farther than
    the rate times .01, and a row that is replaced by twice that divided by the number of rows."""
    rows = list(splits("digits", 0)["train"][:ROWS])
    noise = Noise(noise=1e-9, clip=0.01)
    before, one = trained(noise, tmp_path, rows)
    assert 0 < distance(before, one) <= RATE * 0.01 * 1.001
    rows[3] = {**rows[3], "image": 1 - np.asarray(rows[3]["image"]), "label": (rows[3]["label"] + 1) % 10}
    _, other = trained(noise, tmp_path, rows)
    assert 0 < distance(one, other) <= 2 * RATE * 0.01 / ROWS * 1.001


@pytest.mark.slow
def test_the_noise_is_as_strong_as_it_says_and_secret_where_it_should_be(tmp_path: Path) -> None:
    """The deviation over 1,200 weights is rate x noise x clip / rows, within a tenth. The same seed, the same step; not
    where the noise is secret."""
    rows = splits("digits", 0)["train"][:ROWS]
    quiet = trained(Noise(noise=1e-9, clip=0.01), tmp_path, rows)[1]
    loud = [trained(Noise(noise=50, clip=0.01), tmp_path, rows)[1] for _ in range(2)]
    assert equal(*loud)
    moved = torch.cat([(loud[0][name] - quiet[name]).reshape(-1) for name in quiet])
    assert float(moved.std()) == pytest.approx(RATE * 50 * 0.01 / ROWS, rel=0.1)
    secret = [trained(Noise(noise=50, clip=0.01, secret=True), tmp_path, rows)[1] for _ in range(2)]
    assert not equal(*secret)


@pytest.mark.slow
def test_the_accountant_agrees_with_arithmetic_where_all_rows_take_part() -> None:
    """Without a choice of rows the bound of steps is that of Gaussian noise, for which `private` has a formula: the
    accountant is below it, by less than a tenth. Fewer rows in a step, less epsilon; two stages add up as their
    steps."""
    noise, whole = Noise(noise=2.0), Budget(batch_size=50)
    exact = epsilon(2.0, 12, 1e-5)
    assert 0.9 * exact < epsilon_of(noise, whole, [(50, 12)]) <= exact
    part = epsilon_of(noise, Budget(batch_size=5), [(50, 12)])
    assert part < epsilon_of(noise, whole, [(50, 120)]) / 3
    assert epsilon_of(noise, whole, [(50, 5), (50, 7)]) == pytest.approx(epsilon_of(noise, whole, [(50, 12)]))
    told = guarantee_of(noise, whole, [({"a": 50}, {"facts": [{"round": 1, "updates": {"a": "", "b": ""}}]})])
    assert told["epsilon"] == {"a": epsilon_of(noise, whole, [(50, 1)])}


@pytest.mark.slow
def test_epsilon_by_client_is_in_manifest_evidence_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller clients' is larger; after a departure that of those who stay has grown, and is that of all rounds."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    local = {"sgd": 0.2, "dp": {"noise": 1.0, "clip": 1.0}}
    train(config(tmp_path, rounds=2, local=local))
    told = json.loads((tmp_path / "base" / "expunge.json").read_text())["federation"]["privacy_of_rows"]
    assert set(told["epsilon"]) == {"0", "1", "2", "3"} and told["epsilon"]["0"] > told["epsilon"]["3"] > 0
    given = {"model": str(tmp_path / "base"), "data": str(tmp_path / "rows.jsonl"), "forget": {"client": 3}}
    run({**given, "method": {"go_on": {"rounds": 1}}, "gold": "none", "out": str(tmp_path / "run")})
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    stages = [stage["privacy_of_rows"] for stage in evidence["rounds"]["stages"]]
    assert stages[0] == told and stages[1]["epsilon"]["0"] > told["epsilon"]["0"]
    assert stages[1]["epsilon"]["3"] == told["epsilon"]["3"], "who left spends no more"
    options = federation_of(read_manifest(tmp_path / "base"))
    assert local_of({}, options).dp == Noise(noise=1.0, clip=1.0)
    again = Request.parse({**given, "method": {"erase_client": {"rounds": 1}}, "out": str(tmp_path / "other")})
    assert any("raise their loss without noise" in note for note in plan(again).notes)
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"epsilon {min(stages[1]['epsilon'].values()):.3g} to" in page and "follows from a seed" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "model", "why"),
    [
        ({"strategy": "fedprox"}, None, "adds a term to the clients' loss"),
        ({}, NORMED, "is BatchNorm, under which the rows of a batch have no gradients of their own"),
        ({"local": {"sgd": [0.1, 0.2], "dp": {}}}, None, r"local\.dp"),
    ],
)
def test_what_opacus_cannot_train_is_refused(options: Any, model: Any, why: str, tmp_path: Path) -> None:
    given = config(tmp_path, **{"local": {"sgd": 0.2, "dp": {}}, **options})
    with pytest.raises(BadInput, match=why):
        train({**given, "model": model or MODEL})


@pytest.mark.slow
def test_a_round_of_noisy_clients_follows_from_its_seed(tmp_path: Path) -> None:
    ends = []
    for name in ("one", "again"):
        here = rounds(tmp_path / name)
        here.dp = Noise()
        ends.append(here.run(state_of(here.model), 1))
    assert equal(*ends)
