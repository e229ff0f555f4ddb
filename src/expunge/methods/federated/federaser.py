"""Replay the others' kept updates, each turned into the direction of a short training from where the replay stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from expunge.core.contracts import Method, MethodCard
from expunge.methods._history import Kept
from expunge.methods._rounds import Local, Rounds, local_budget
from expunge.methods._strategy import Strategy
from expunge.methods.federated._departure import Departure, Leaves
from expunge.training.updates import ClientUpdate, State, by_client, floating, mean_by_examples

CARD = MethodCard(
    "Replay of kept updates with calibration (FedEraser)",
    paper="doi:10.1109/IWQOS52092.2021.9521274",
    equation="algorithm 1",
    needs={"forget": (), "retain": {"nll"}},
    capabilities={"federation"},
    means="The leaving client need not help, and its kept updates are never read. The server must have kept all rounds "
    "(`history: all`), which costs a model for each client and round.",
    fidelity="variant",
    shown="On digits five replayed rounds take a planted trigger to under .05, and more than 5 points of clean "
    "accuracy; on MNIST, at clients of 400 rows, no more than 4 points.",
    leaves_out="Lengths are taken tensor by tensor; calibration counts in passes, not in a share of the local epochs.",
)


def federaser(
    *,
    interval: Annotated[int, Ge(1), Le(1000)] = 2,
    passes: Annotated[int, Ge(1), Le(1000)] = 1,
    rounds: Annotated[int, Ge(0), Le(10_000)] = 0,
    stretch: Annotated[float, Gt(0), Le(100)] = 1.0,
) -> Method:
    """Rebuild the global model from the others' kept updates: each one's length, in the direction of a new training.

    interval: of the kept rounds every so many is replayed, from the first on. passes: over its rows that each client
    trains for a new direction. stretch: factor on the kept lengths. rounds: ordinary ones afterwards.
    """

    def erase(departure: Departure) -> State:
        kept = departure.kept[::interval]
        first = _others(kept[0], departure)
        weights = mean_by_examples(kept[0].before, first) if first else kept[0].before
        local = local_budget(departure.local, Local(epochs=passes))
        inner = departure.context.child("replay")
        for old in kept[1:]:
            if others := _others(old, departure):
                weights = _replay(departure.rounds(inner, local), old, others, weights, stretch)
        return departure.go_on(weights, rounds)

    def count(trained: int, epochs: int) -> float:
        return rounds + (len(range(0, trained, interval)) - 1) * passes / epochs

    return Leaves(erase, count, whole=True)


def _others(kept: Kept, departure: Departure) -> list[ClientUpdate]:
    """The kept updates of the clients that stay whole."""
    return [one for one in kept.updates if one.client in departure.staying and one.client not in departure.leaving]


def _replay(run: Rounds, old: Kept, others: Sequence[ClientUpdate], weights: State, stretch: float) -> State:
    """One kept round from `weights` on: lengths of then, directions of now."""
    then = {one.client: one for one in by_client(others)}
    run.clients = {name: rows for name, rows in run.clients.items() if name in then}
    run.share = 1.0
    run.strategy = _Calibrated(then, old.before, stretch)
    after, _ = run.round(old.number, weights)
    return after


class _Calibrated(Strategy):
    """Turns the clients' new updates into ones of the kept lengths, and averages them by examples."""

    def __init__(self, then: Mapping[str, ClientUpdate], before: State, stretch: float) -> None:
        super().__init__()
        self.then, self.start, self.stretch = then, before, stretch

    def __call__(self, before: State, updates: Sequence[ClientUpdate]) -> State:
        turned = [ClientUpdate(one.client, self._turn(before, one), one.examples) for one in updates]
        return mean_by_examples(before, turned)

    def _turn(self, before: State, now: ClientUpdate) -> State:
        found: dict[str, Any] = dict(now.weights)
        for name in floating(before):
            new = now.weights[name].double() - before[name].double()
            old = self.then[now.client].weights[name].double() - self.start[name].double()
            length = new.norm()
            if float(length):
                found[name] = (before[name].double() + self.stretch * old.norm() * new / length).to(before[name].dtype)
        return found
