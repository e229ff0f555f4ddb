"""Rounds without the client, and nothing else: the control of methods that erase one."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from expunge.core.contracts import Method, MethodCard
from expunge.methods._rounds import state_of
from expunge.methods.federated._departure import Departure, Leaves
from expunge.training.updates import State

CARD = MethodCard(
    "Rounds without the client",
    paper="baseline",
    equation="fine-tuning",
    needs={"forget": (), "retain": {"nll"}},
    capabilities={"federation"},
    means="A control: what the client had taught stays for many rounds, as nothing contradicts it.",
    fidelity="faithful",
    shown="On MNIST, whose clients train by SGD, a planted trigger still works in over .9 of the cases after five "
    "rounds. On digits, by AdamW, in more than .1 more of them than after an erasure; there it wears off by itself. In "
    "a retrained federation it works in under .05.",
)


def go_on(*, rounds: Annotated[int, Ge(0), Le(10_000)] = 5, drop_last: bool = False) -> Method:
    """Go on without the leaving clients, from the global model or from the mean of the others' last models.

    drop_last: subtract the leaving clients' last updates first, which takes a strategy that averages.
    """

    def erase(departure: Departure) -> State:
        start = departure.reference() if drop_last else state_of(departure.model)
        return departure.go_on(start, rounds)

    return Leaves(erase, lambda *_: rounds, averages=drop_last, last=drop_last)
