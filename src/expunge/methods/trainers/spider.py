"""A supernet that a federation trains, and of each client a network of its own among its operations (SPIDER)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, MethodCard, Model, Silent, Term
from expunge.core.errors import BadInput
from expunge.core.files import new_folder
from expunge.data.clients import FIELD, Placing, clients_of, hold_out
from expunge.methods._rounds import Local, Rounds, local_budget, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.objective import plain_training
from expunge.methods.strategies.fedprox import Pull
from expunge.methods.trainers import federation
from expunge.methods.training import BESIDE
from expunge.models.supernet import Operations, operations_of, part_of
from expunge.training import checkpoint
from expunge.training.stopping import figures
from expunge.training.updates import State

WHERE = "trainer.spider"
FOLDER = "own-{}"
"""Beside the model: a client's own network, by its place among the clients' names. It opens like any model."""


def client_in(options: Mapping[str, Any]) -> Callable[[Example], Any]:
    """With whom a row lies in the federation of these options."""
    return federation.client_in(options)


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """As of a federation; that the model is a supernet, and that the rounds suffice for all drops. Raises BadInput."""
    drops = drops_of(operations_of(model), options["every"])
    federation.check(model, data, clients=options["clients"], local=options["local"], strategy="fedavg")
    if (share := Placing.of(options["clients"], f"{WHERE}.clients").fraction) < 1:
        why = "leaves clients out of rounds in which each of them drops an operation"
        raise BadInput.of(f"{WHERE}.clients", f"fraction: {share}", why, "leave it out")
    if drops and max(drops) > options["rounds"]:
        why = f"are too few for {len(drops)} drops, of which the last is in round {max(drops)}"
        raise BadInput.of(f"{WHERE}.rounds", options["rounds"], why, "give more, or lower every")


def drops_of(operations: Operations, every: int) -> list[int]:
    """The rounds that begin with a drop, until each cell has one operation.

    The first is the second of the multiples of `every`: a supernet that knows nothing cannot tell what to drop.
    """
    return [every * (i + 2) for i in range(sum(len(own) - 1 for own in operations))]


@dataclass(frozen=True)
class Own:
    """A client's own network: its operations by cell, and its weights."""

    operations: Operations
    weights: State


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    clients: Any = FIELD,
    rounds: Annotated[int, Ge(1), Le(100_000)] = 16,
    local: Any = 1,
    pull: Annotated[float, Ge(0)] = 1.0,
    every: Annotated[int, Ge(1), Le(100_000)] = 2,
) -> Model:
    """Train a supernet by rounds of FedAvg and, within each round, a network of each client's own on its own rows.

    A client's own begins as the whole supernet. Its loss adds pull/2 times the squared distance of its weights from the
    round's supernet, over the operations that it still has. Every `every` rounds (`drops_of`) it drops the operation
    without which it does best on rows that it held out (`cheapest`), until each cell has one; then these train too.
    What a client's own learns and drops is never sent. The supernet is the result; the clients' own lie beside it
    (`FOLDER`). Source: arXiv:2112.13939; the authors' code (d48163f) draws an edge of a cell at a time instead, and
    leaves it the operation whose removal costs most. Raises BadInput.
    """
    check(fresh, data, clients=clients, rounds=rounds, local=local, every=every)
    began, divided = time.monotonic(), clients_of(data, Placing.of(clients, f"{WHERE}.clients"))
    budget = local_budget(context.budget, Local.of(local, f"{WHERE}.local"))
    run = Rounds(fresh, divided, strategy_of("fedavg", WHERE), context, budget)
    weights, own = search(run, rounds, every, pull)
    checkpoint.restore(fresh.module, weights, "")
    fresh.module.eval()
    context.notes["outcome"] = federation.outcome_of(run, budget.learning_rate, time.monotonic() - began)
    context.notes["outcome"]["federation"] |= {
        "examples": {name: len(rows) for name, rows in divided.items()},
        "own": write_own(fresh, own, context),
    }
    return fresh


def search(run: Rounds, count: int, every: int, pull: float) -> tuple[State, dict[str, Own]]:
    """(the supernet's weights, the clients' own networks) after so many rounds."""
    context, divided, weights = run.context, run.clients, state_of(run.model)
    operations = operations_of(run.model)
    drops = drops_of(operations, every)
    parts = {name: hold_out(rows, context.derive("hold out", name)) for name, rows in divided.items()}
    own = {name: Own(operations, weights) for name in divided}
    context.reporter.start(context.label, count)
    for number in range(1, count + 1):
        searching = number <= max(drops, default=0)
        run.clients = {name: seen for name, (seen, _) in parts.items()} if searching else divided
        for name in divided:
            unseen = parts[name][1] if number in drops else []
            own[name] = own_round(run, name, number, own[name], weights, unseen, pull)
        weights, _ = run.round(number, weights)
        context.reporter.advance(context.label, number, f"round {number}")
    context.reporter.finish(context.label)
    return weights, own


def own_round(
    run: Rounds, name: str, number: int, own: Own, supernet: State, unseen: Sequence[Example], pull: float
) -> Own:
    """A client's own network after a round: with rows to measure on it drops an operation first. Stored once."""
    place = f"own-{list(run.clients).index(name)}"
    mine = run.context.child(place, draws=f"own/client-{name}", budget=run.budget, notes={}, reporter=Silent())
    stage = f"round-{number:04d}"

    def learn() -> dict[str, Tensor]:
        left = cheapest(own.operations, lambda some: worth(run.model, some, own.weights, unseen)) if unseen else None
        operations = left or own.operations
        model = part_of(run.model, operations, own.weights)
        objective = plain_training()
        objective.terms["pull"] = Term.of("pull", Pull(pull, supernet), MethodCard("Pull towards the supernet"))
        inner = mine.child(stage, notes={})
        objective(model, {"retain": run.clients[name]}, inner)
        mine.notes |= {"operations": operations, "outcome": inner.notes["outcome"]}
        return state_of(model)

    weights = mine.once(stage, learn)
    run.ledger.steps += mine.notes["outcome"]["steps"]
    run.ledger.tokens += mine.notes["outcome"]["tokens"]
    return Own(mine.notes["operations"], weights)


def worth(model: Model, operations: Operations, weights: State, rows: Sequence[Example]) -> tuple[float, float]:
    """(accuracy, minus the loss in nats) of a supernet's part on rows."""
    read = figures(part_of(model, operations, weights), rows)
    return read["accuracy"], -read["nll"]


def cheapest(operations: Operations, value: Callable[[Operations], tuple[float, float]]) -> Operations | None:
    """The operations without the one whose removal leaves most value; the first of equal ones.

    The last operation of a cell stays. None where each cell has one.
    """
    fewer = [
        [[one for one in other if one != name] if j == cell else other for j, other in enumerate(operations)]
        for cell, names in enumerate(operations)
        for name in names
        if len(names) > 1
    ]
    return max(fewer, key=value, default=None)


def write_own(fresh: Model, own: Mapping[str, Own], context: Context) -> dict[str, Any]:
    """Write each client's network beside the model. Client -> its folder and operations, for the manifest."""
    told = {}
    for i, (name, one) in enumerate(own.items()):
        with new_folder(context.folder / BESIDE / FOLDER.format(i)) as folder:
            part_of(fresh, one.operations, one.weights).save(folder)
        told[name] = {"folder": FOLDER.format(i), "operations": one.operations}
    return told
