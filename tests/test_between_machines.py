"""What a federation between machines refuses, at the server and at each client, before anybody is reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from expunge.core.errors import BadInput
from expunge.methods.deployment import Training, join, serve
from test_federation import config, rows

PLACE = "trainer.federation."


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"local": {"encrypt": "ckks"}, "history": "none", "strategy": "median"},
            PLACE + "local.encrypt: 'ckks' hides the single updates that the strategy median compares; take fedavg.",
        ),
        (
            {"local": {"encrypt": "paillier"}, "history": "none", "strategy": "krum"},
            PLACE + "local.encrypt: 'paillier' hides the single updates that the strategy krum compares; take fedavg.",
        ),
        (
            {"strategy": {"tifl": {"tiers": 2}}},
            PLACE + "strategy: \"{'tifl': {'tiers': 2}}\" chooses clients by their rows, which the server does not see "
            "between machines; take fedavg.",
        ),
        (
            {"history": "all"},
            PLACE + "history: 'all' asks for a record of all rounds, and between machines the server keeps none; "
            "set history: none.",
        ),
        (
            {"history": "last"},
            PLACE + "history: 'last' asks for a record of each client's last model, and between machines the server "
            "keeps none; set history: none.",
        ),
        (
            {"local": {"sgd": [0.01, 0.1]}},
            PLACE + "local: \"{'sgd': [0.01, 0.1]}\" is a search, which is not done between machines; "
            "give one rate, as sgd: 0.05.",
        ),
        (
            {"local": {"sgd": 0.05, "dp": {"noise": 1.0}}, "strategy": "reweigh"},
            PLACE + "local.dp: 'reweigh' adds a term to the clients' loss; take fedavg.",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_sentence(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    train = tmp_path / "train.yaml"
    train.write_text(json.dumps(config(tmp_path, **options)))
    with pytest.raises(BadInput) as client:
        join(train, "0", rows(), tmp_path / "scratch", lambda model, own: "")
    with pytest.raises(BadInput) as server:
        serve(train, None, 2, tmp_path / "result")
    assert [client.value.faults, server.value.faults] == [[why], [why]]
    assert {path.name for path in tmp_path.iterdir()} <= {"train.yaml", "rows.jsonl"}, "nothing was begun"


def test_a_record_that_nobody_asked_for_is_no_fault(tmp_path: Path) -> None:
    """One process keeps each client's last model by default; between machines a file that does not say so is read."""
    train = tmp_path / "train.yaml"
    train.write_text(json.dumps(config(tmp_path)))
    assert "history" not in Training.read(train).options
    train.write_text(json.dumps({**config(tmp_path), "trainer": "federation"}))
    assert Training.read(train).strategy.averages


def test_noise_on_a_network_with_batch_norm_is_refused_before_anybody_is_reached(tmp_path: Path) -> None:
    """By server and client alike, and by a server that has no Opacus."""
    train = tmp_path / "train.yaml"
    normed = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8, "norm": "batch"}}
    train.write_text(json.dumps({**config(tmp_path, local={"sgd": 0.2, "dp": {}}), "model": normed}))
    why = "is BatchNorm, under which the rows of a batch have no gradients of their own; take GroupNorm for BatchNorm"
    with pytest.raises(BadInput, match=PLACE + r"local\.dp: '\S+' " + why):
        serve(train, None, 2, tmp_path / "result")
    with pytest.raises(BadInput, match=why):
        join(train, "0", rows(), tmp_path / "scratch", lambda model, own: "")


def test_who_must_sign_needs_a_key(tmp_path: Path) -> None:
    train = tmp_path / "train.yaml"
    train.write_text(json.dumps(config(tmp_path, local={"sign": "keys"})))
    with pytest.raises(BadInput, match=r"^key: is missing, and trainer.federation.local.sign asks for claims"):
        join(train, "0", rows(), tmp_path, lambda model, own: "")
    with pytest.raises(BadInput, match=r"^parties: is missing, and trainer.federation.local.sign asks for claims"):
        serve(train, None, 2, tmp_path / "result")


def test_one_client_is_no_federation(tmp_path: Path) -> None:
    train = tmp_path / "train.yaml"
    train.write_text(json.dumps(config(tmp_path)))
    with pytest.raises(BadInput, match="clients: 1 is the number of clients"):
        serve(train, None, 1, tmp_path / "result")


def test_another_trainer_is_refused(tmp_path: Path) -> None:
    train = tmp_path / "train.yaml"
    train.write_text(json.dumps({**config(tmp_path), "trainer": {"vertical": {"parties": 2}}}))
    with pytest.raises(BadInput, match="trainer: 'vertical' is not what server and clients run between machines"):
        serve(train, None, 2, tmp_path / "result")
