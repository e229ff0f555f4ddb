"""Federated alternate training: annotated silos and those without labels take turns (FAT)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput, did_you_mean
from expunge.data.clients import FIELD, Clients, Placing, client_of, clients_of
from expunge.methods._confident import confident
from expunge.methods._rounds import Ledger, Local, Rounds, local_budget, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.trainers.federation import outcome_of
from expunge.models.family import family
from expunge.training import checkpoint
from expunge.training.updates import State

WHERE = "trainer.fat"


def client_in(options: Mapping[str, Any]) -> Callable[[Example], Any]:
    """With whom a row lies in the federation of these options."""
    placing = Placing.of(FIELD, WHERE)
    return lambda row: client_of(row, placing)


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """Check that the model has classes, and that some clients are annotated. Raises BadInput."""
    if "logits" not in family(model.family).gives:
        raise BadInput.of("trainer", "fat", "gives rows labels, and this model has no classes", "give a classifier")
    Local.of(options["local"], f"{WHERE}.local")
    known = list(clients_of(data, Placing.of(FIELD, WHERE)))
    for name in map(str, options["annotated"]):
        if name not in known:
            raise BadInput.of(f"{WHERE}.annotated", name, "unknown client", did_you_mean(name, known))
    if not options["annotated"]:
        raise BadInput.of(f"{WHERE}.annotated", "", "names no client", "name the clients whose rows have labels")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    annotated: list[Any],
    cycles: Annotated[int, Ge(1), Le(10_000)] = 4,
    rounds: Annotated[int, Ge(1), Le(10_000)] = 3,
    sure: Annotated[float, Ge(0), Le(1)] = 0.9,
    local: Any = 1,
) -> Model:
    """Train in cycles: rounds of the annotated clients, then as many of the others on labels that the model gives them.

    A row names its client by its field `client`. annotated: the clients whose labels are read; of the others no label
    ever is. At the start of the others' rounds the global model is the target for all of them: each keeps the rows of
    which the target is `sure`, under its prediction. Rounds are FedAvg's. An annotated client's departure makes gold
    give all labels anew. Source: arXiv:2304.09327, without its mix-up of views. Raises BadInput.
    """
    check(fresh, data, annotated=annotated, local=local)
    began, names = time.monotonic(), set(map(str, annotated))
    divided = clients_of(data, Placing.of(FIELD, WHERE))
    known: Clients = {name: rows for name, rows in divided.items() if name in names}
    others: Clients = {name: rows for name, rows in divided.items() if name not in names}
    ledger, budget = Ledger(), local_budget(context.budget, Local.of(local, f"{WHERE}.local"))
    run = Rounds(fresh, known, strategy_of("fedavg", WHERE), context, budget, ledger=ledger)
    weights, labelled = state_of(fresh), []
    for cycle in range(cycles):
        first = 1 + len(ledger.rounds)
        weights = Rounds(fresh, known, run.strategy, context, budget, ledger=ledger).run(weights, rounds, first)
        given = label_by(fresh, weights, others, sure)
        labelled.append(sum(len(rows) for rows in given.values()))
        if given and cycle < cycles - 1:  # the last word is the annotated ones'
            taught = Rounds(fresh, given, run.strategy, context, budget, ledger=ledger)
            weights = taught.run(weights, rounds, first + rounds)
    checkpoint.restore(fresh.module, weights, "")
    fresh.module.eval()
    context.notes["outcome"] = outcome_of(run, budget.learning_rate, time.monotonic() - began)
    context.notes["outcome"]["federation"]["labelled"] = labelled
    return fresh


def label_by(model: Model, weights: State, clients: Clients, sure: float) -> Clients:
    """The rows of which a model with these weights is sure, under the label that it gives; clients without one are out.

    A row's own label, if it has one, is not read. `Clients` of each client's rows, in their order.
    """
    checkpoint.restore(model.module, weights, "")
    model.module.eval()
    given = {name: confident(model, [{**row, "label": 0} for row in rows], sure) for name, rows in clients.items()}
    return {name: rows for name, rows in given.items() if rows}
