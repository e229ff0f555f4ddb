"""The strategy of a federation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from expunge.core import registry
from expunge.core.contracts import Term
from expunge.core.errors import BadInput
from expunge.data.clients import Clients
from expunge.training.updates import ClientUpdate, State

Aggregate = Callable[[State, Sequence[ClientUpdate]], State]
"""(the round's global model, the clients' models) -> the next global model. It keeps nothing of them."""


class Strategy:
    """How clients train, and how their models become the next global model: a plain function, or a subclass.

    averages: whether the global model is the mean of the clients' models by their examples, which lets a leaving
    client work out the mean of the others. adds: whether the server needs no more of them than that mean, so that it
    may be given a sum alone; as a strategy that averages does. looks: whether the server needs the clients' numbers of
    rows before a round, or the model's accuracy on these after it.
    """

    averages = False
    adds = False
    looks = False

    def __init__(self, aggregate: Aggregate | None = None, *, averages: bool = False) -> None:
        self._aggregate = aggregate
        self.averages = averages
        self.adds = averages or self.adds

    def __call__(self, before: State, updates: Sequence[ClientUpdate]) -> State:
        if self._aggregate is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a function nor a __call__ of its own")
        return self._aggregate(before, updates)

    def fits(self, clients: Clients, where: str) -> None:
        """Raises BadInput where its options do not go with these clients. where: the field that errors name."""

    def terms(self) -> dict[str, Term]:
        """Further loss terms of the clients' local training."""
        return {}

    def choose(self, sizes: Mapping[str, int], count: int, draw: Callable[[str], int]) -> list[str] | None:
        """The clients of a round, where the strategy chooses them; None for ones that are drawn at random.

        sizes: client -> its rows. count: clients to take. draw: name -> a whole number below 2**63, the round's own.
        """

    def judge(self, number: int, sizes: Mapping[str, int], accuracy: Callable[[Sequence[str]], float]) -> None:
        """Look at the model that a round made. accuracy: names of clients -> its accuracy on their rows."""

    def protect(self, before: State, update: ClientUpdate, count: int) -> ClientUpdate:
        """The update as its client sends it, one of so many: clipped and noised, where the strategy says so."""
        return update

    def share(self, update: ClientUpdate) -> int:
        """The weight of a client's part in a sum, which the server knows."""
        return update.examples

    def least(self, count: int) -> int:
        """How many of the clients that a round asks must answer."""
        return 1

    def guarantee(self, rounds: int) -> dict[str, Any]:
        """The guarantee of its noise after so many rounds, for manifest and evidence; empty where there is none.

        epsilon: None where nothing bounds it. delta. of: `sum` or `message`, what the bound is of.
        """
        return {}

    def state(self) -> dict[str, Tensor]:
        """Its memory of earlier rounds, for the checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""


def strategy_of(spec: Any, where: str) -> Strategy:
    """The strategy of a name, or of {name: options}. Raises BadInput."""
    name, options = next(iter(spec.items())) if isinstance(spec, Mapping) and len(spec) == 1 else (spec, {})
    if not isinstance(name, str) or not isinstance(options or {}, Mapping):
        raise BadInput.of(where, str(spec), "is not a strategy", "give a name, or {name: {option: value}}")
    plugin = registry.load("strategies", name, where)
    made: Strategy = plugin.factory(**plugin.validate(options or {}, f"{where}.{name}"))
    return made
