"""Rounds of local training at the clients of a federation, whose models a strategy combines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.data.clients import MOST, clients_of
from expunge.methods._history import Kept, write_history
from expunge.methods._rounds import Rounds, local_budget, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.training import BESIDE
from expunge.models.history import FEDERATED, with_history
from expunge.training import checkpoint

WHERE = "trainer.federation"


def added_capabilities(options: Mapping[str, Any]) -> frozenset[str]:
    """What the model has that this leaves: a server's record of the rounds."""
    return frozenset({FEDERATED} if options["history"] != "none" else ())


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """Check the strategy, and that there are two clients. Raises BadInput."""
    strategy_of(options["strategy"], f"{WHERE}.strategy")
    if model.coupled:
        return
    clients = clients_of(data, options, 0)
    if len(clients) < 2:
        raise BadInput.of(WHERE, len(clients), "is the number of clients", "give rows of two clients or more")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    partition: Literal["field", "iid", "dirichlet", "label"] = "field",
    by: str = "client",
    clients: Annotated[int, Ge(2), Le(MOST)] = 8,
    alpha: Annotated[float, Gt(0), Le(1e6)] = 0.5,
    rounds: Annotated[int, Ge(1), Le(100_000)] = 12,
    fraction: Annotated[float, Gt(0), Le(1)] = 1.0,
    local_epochs: Annotated[int, Ge(1), Le(1000)] = 1,
    strategy: Any = "fedavg",
    history: Literal["none", "last", "all"] = "last",
) -> Model:
    """Train the clients' models from the global one, `local_epochs` passes a round, and combine them by the strategy.

    partition: a client for each value of the field `by`, or `clients` clients that are drawn alike, by Dirichlet shares
    of each label, or one for each label. fraction: of the clients, which take part in a round. history: what the server
    keeps beside the model: each client's last model, or those of all rounds, which `federaser` replays. The optimiser,
    its rate and the batch size are those of train.yaml; `epochs` there is not read. Raises BadInput.
    """
    began = time.monotonic()
    placing = {"partition": partition, "by": by, "clients": clients, "alpha": alpha}
    divided = clients_of(data, placing, context.seed)
    run = Rounds(
        fresh,
        divided,
        strategy_of(strategy, f"{WHERE}.strategy"),
        context,
        local_budget(context.budget, local_epochs),
        fraction,
    )
    weights, kept = state_of(fresh), []
    context.reporter.start(context.label, rounds)
    for number in range(1, rounds + 1):
        wanted = history == "all" or (history == "last" and number == rounds)
        before = weights
        weights, updates = run.round(number, before, keep=wanted)
        kept += [Kept(number, before, updates)] if wanted else []
        context.reporter.advance(context.label, number, f"round {number}")
    context.reporter.finish(context.label)
    checkpoint.restore(fresh.module, weights, "")
    fresh.module.eval()
    if kept:
        write_history(context.folder / BESIDE, kept)
        with_history(fresh, context.folder / BESIDE)
    context.notes["outcome"] = outcome_of(run, context.budget.learning_rate, time.monotonic() - began)
    context.notes["outcome"]["federation"] |= {"examples": {name: len(rows) for name, rows in divided.items()}}
    return fresh


def outcome_of(run: Rounds, rate: Any, seconds: float) -> dict[str, Any]:
    """The rounds in the form of a training run's outcome, with `federation`: who took part, and bytes."""
    ledger = run.ledger
    return {
        "steps": ledger.steps,
        "tokens": ledger.tokens,
        "seconds": max(ledger.seconds, seconds),
        "curve": [],
        "stop": {},
        "learning_rate": float(rate) if isinstance(rate, float | int) else 0.0,
        "rate_source": "as in training",
        "federation": ledger.account(),
    }


def federation_of(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of the federation that trained the model. Raises BadInput where none did."""
    options = ((manifest or {}).get("trainer") or {}).get("federation")
    if options is None:
        raise BadInput.of(
            "method", "", "needs a model that a federation trained", "train with `trainer: federation` in train.yaml"
        )
    return dict(options)
