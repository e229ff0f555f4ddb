"""Flower's SecAgg+ around the clients' training, by Flower's older interface, the only one that has it.

Slow: flwr is the extra `federated`, which `make nightly` installs.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.methods._rounds import Rounds, state_of
from expunge.methods.flower import InProcessGrid
from expunge.training.updates import ClientUpdate, State
from test_federation import rounds

pytestmark = pytest.mark.slow


def arrays(weights: State, order: list[str]) -> list[np.ndarray]:
    return [weights[name].numpy() for name in order]


def test_a_round_of_masked_models_is_the_plain_mean_to_its_quantisation(tmp_path: Path) -> None:
    """Four clients of 32, 32, 32 and 64 rows, of whom the server adds masked whole numbers: every weight of the next
    model lies within 1e-4 of the plain mean, and no message holds a client's model: its arrays are gone from the
    reply."""
    flwr = importlib.import_module("flwr")
    server, client = importlib.import_module("flwr.server"), importlib.import_module("flwr.client")
    mod = importlib.import_module("flwr.client.mod").secaggplus_mod
    workflow = importlib.import_module("flwr.server.workflow")
    plain, hidden = rounds(tmp_path / "plain"), rounds(tmp_path / "hidden")
    start = state_of(plain.model)
    order = [name for name in start if start[name].is_floating_point()]
    nodes = {10 + i: name for i, name in enumerate(hidden.clients)}

    class Client(client.NumPyClient):  # type: ignore[misc, name-defined]
        def __init__(self, name: str) -> None:
            self.name = name

        def fit(self, given: list[np.ndarray], config: Mapping[str, Any]) -> tuple[list[np.ndarray], int, dict]:
            weights = start | {key: torch.from_numpy(value.copy()) for key, value in zip(order, given, strict=True)}
            found: ClientUpdate = hidden.train_client(1, self.name, weights)
            return arrays(found.weights, order), found.examples, {}

    app = client.ClientApp(client_fn=lambda context: Client(nodes[context.node_id]).to_client(), mods=[mod])
    grid: Any = InProcessGrid(app, nodes)
    grid.run = SimpleNamespace(run_id=1)  # which the older interface asks for
    sent: list[Any] = []
    answer = grid._answer
    # each node gets a copy, as through a network: the mod changes the message that it is given
    grid._answer = lambda message: sent.append(answer(copy.deepcopy(message))) or sent[-1]
    common = importlib.import_module("flwr.common")
    strategy = server.strategy.FedAvg(
        fraction_evaluate=0.0, initial_parameters=common.ndarrays_to_parameters(arrays(start, order))
    )
    given = flwr.app.Context(run_id=1, node_id=1, node_config={}, state=flwr.app.RecordDict(), run_config={})
    context = server.LegacyContext(given, config=server.ServerConfig(num_rounds=1), strategy=strategy)
    secure = workflow.SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, timeout=60)
    workflow.DefaultWorkflow(fit_workflow=secure)(grid, context)
    record = next(iter(context.state.array_records.values()))
    found = [value.numpy() for value in record.values()]
    expected = one_round(plain, start)
    assert max(float(np.abs(a - b).max()) for a, b in zip(found, arrays(expected, order), strict=True)) < 1e-4
    assert max(float((expected[name] - start[name]).abs().max()) for name in order) > 0.01
    replies = [message.content.array_records for message in sent if message.has_content()]
    assert replies and not any(len(array) for records in replies for array in records.values())


def one_round(run: Rounds, start: State) -> State:
    return run.run(start, 1)
