"""Rounds through Flower's messages are the rounds without them.

Slow: flwr is the extra `federated`, which `make nightly` installs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.errors import BadInput
from expunge.data.load import load
from expunge.methods._rounds import Rounds, state_of
from expunge.methods.claims import broken_claims, make_keys, public_key
from expunge.methods.deployment import join, serve
from expunge.methods.flower import InProcessGrid, client_app, exchange_through
from expunge.methods.sealed import Sums, write_keys
from expunge.training.updates import ClientUpdate, State
from test_federation import config, equal, rounds, rows


def test_without_flwr_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    with pytest.raises(BadInput, match=r"pip install 'expunge\[federated\]'"):
        client_app(train=lambda number, name, weights, count: ClientUpdate(name, weights, 1))


def through_flower(run: Rounds, lost: str = "", empty: str = "") -> None:
    """Let the rounds go through a grid in this process; the client `lost` raises, and `empty` replies with nothing."""

    def train(number: int, name: str, weights: State, count: int) -> ClientUpdate:
        if name == lost:
            raise RuntimeError("lost")
        return run.send(number, name, weights, count)

    nodes = {name: 10 + i for i, name in enumerate(run.clients)}
    grid = InProcessGrid(client_app(train), nodes.values())
    answer = grid._answer

    def cut(message: Any) -> Any:
        reply = answer(message)
        if empty and message.metadata.dst_node_id == nodes[empty]:
            for name in list(reply.content):
                del reply.content[name]
        return reply

    grid._answer = cut  # type: ignore[method-assign]
    run.exchange = exchange_through(grid, nodes)


@pytest.mark.slow
def test_three_rounds_through_messages_end_with_the_same_bits(tmp_path: Path) -> None:
    plain, sent = rounds(tmp_path / "plain"), rounds(tmp_path / "sent")
    through_flower(sent)
    start = state_of(plain.model)
    assert equal(sent.run(start, 3), plain.run(start, 3))
    assert sent.ledger.account() == plain.ledger.account()


@pytest.mark.slow
def test_messages_carry_ciphertexts_and_claims(tmp_path: Path) -> None:
    """Server and clients have keys of their own from files, as on several machines: the model of rounds in one process,
    bit for bit, each client's claim in the facts, and a client without the secret key sends nothing."""
    names = ["0", "1", "2", "3"]
    write_keys(tmp_path, "ckks")
    make_keys(tmp_path / "keys", names)
    settings = config(tmp_path, rounds=2, local={"encrypt": "ckks"}, history="none")
    (tmp_path / "train.yaml").write_text(json.dumps(settings))
    mine = {name: [row for row in rows() if str(row["client"]) == name] for name in names}
    with pytest.raises(BadInput, match=r"secret.*is missing, and the sums are ckks"):
        join(tmp_path / "train.yaml", "0", mine["0"], tmp_path, lambda model, own: "")

    def made(name: str) -> Any:
        key, data = tmp_path / "keys" / f"{name}.pem", list(load(mine[name], "rows"))
        given = {"secret": tmp_path / "sums.key", "key": key}
        return join(tmp_path / "train.yaml", name, data, tmp_path / name, lambda model, own: "{}", **given)

    grid = _Several({10 + i: made(name) for i, name in enumerate(names)})
    keys = {"public": tmp_path / "sums.pub", "parties": tmp_path / "keys"}
    found = serve(tmp_path / "train.yaml", grid, 4, tmp_path / "result", **keys)
    here = rounds(tmp_path / "here")
    here.sums = Sums.of("ckks")
    assert equal(found, here.run(state_of(here.model), 2))
    facts = json.loads((tmp_path / "result" / "federation.json").read_text())["facts"]
    assert [sorted(fact["claims"]) for fact in facts] == [names, names]
    known = {name: public_key(tmp_path / "keys" / f"{name}.pub") for name in names}
    assert not any(broken_claims(fact, known) for fact in facts)


class _Several(InProcessGrid):
    """A grid whose nodes each have an app of their own."""

    def __init__(self, apps: dict[int, Any]) -> None:
        super().__init__(None, apps)
        self.apps = apps

    def _answer(self, message: Any) -> Any:
        self.app = self.apps[message.metadata.dst_node_id]
        return super()._answer(message)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["lost", "empty"])
def test_a_client_that_raises_or_sends_nothing_is_named_and_the_round_goes_on(fault: str, tmp_path: Path) -> None:
    run = rounds(tmp_path)
    through_flower(run, **{fault: "2"})
    found = run.run(state_of(run.model), 1)
    assert run.ledger.refused == [{"2": "did not answer"}] and run.ledger.rounds == [["0", "1", "3"]]
    assert all(bool(torch.isfinite(value).all()) for value in found.values())
