"""Rounds through Flower's messages are the rounds without them.

Slow: flwr is the extra `federated`, which `make nightly` installs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from expunge.core.errors import BadInput
from expunge.methods._rounds import Rounds, state_of
from expunge.methods.flower import InProcessGrid, client_app, exchange_through
from expunge.training.updates import ClientUpdate, State
from test_federation import equal, rounds


def test_without_flwr_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    with pytest.raises(BadInput, match=r"pip install 'expunge\[federated\]'"):
        client_app(train=lambda number, name, weights, count: ClientUpdate(name, weights, 1))


def through_flower(run: Rounds, lost: str = "") -> None:
    """Let the rounds go through a grid in this process; the client `lost` raises."""

    def train(number: int, name: str, weights: State, count: int) -> ClientUpdate:
        if name == lost:
            raise RuntimeError("lost")
        return run.send(number, name, weights, count)

    nodes = {name: 10 + i for i, name in enumerate(run.clients)}
    run.exchange = exchange_through(InProcessGrid(client_app(train), nodes.values()), nodes)


@pytest.mark.slow
def test_three_rounds_through_messages_end_with_the_same_bits(tmp_path: Path) -> None:
    plain, sent = rounds(tmp_path / "plain"), rounds(tmp_path / "sent")
    through_flower(sent)
    start = state_of(plain.model)
    assert equal(sent.run(start, 3), plain.run(start, 3))
    assert sent.ledger.account() == plain.ledger.account()


@pytest.mark.slow
def test_a_client_that_raises_is_named_and_the_round_goes_on(tmp_path: Path) -> None:
    run = rounds(tmp_path)
    through_flower(run, lost="2")
    found = run.run(state_of(run.model), 1)
    assert run.ledger.refused == [{"2": "did not answer"}] and run.ledger.rounds == [["0", "1", "3"]]
    assert all(bool(torch.isfinite(value).all()) for value in found.values())
