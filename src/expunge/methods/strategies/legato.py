"""Layers weighted by how steady the sizes of their updates were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.card import Card
from expunge.methods._strategy import Strategy
from expunge.training.updates import ClientUpdate, State, by_client, combine, floating

CARD = Card(
    "Layerwise gradient aggregation (LEGATO)",
    paper="arXiv:2107.12490",
    equation="algorithm 1",
    means="A layer whose updates vary in size counts less for this round and more for the earlier ones. It filters "
    "nobody: values far out of scale still get through. Written from a description of the algorithm: updates of "
    "weights stand for gradients, a tensor for a layer. Beside two of five clients that send noise it was no better "
    "than fedavg, where median held.",
)
EPSILON = 1e-12


class Legato(Strategy):
    """A log of each client's last updates, and the layers' factors from it."""

    def __init__(self, log: int) -> None:
        super().__init__()
        self.log = log
        self.past: dict[str, list[State]] = {}
        """Client -> its last updates, the oldest first."""

    def __call__(self, before: State, updates: Sequence[ClientUpdate]) -> State:
        names = floating(before)
        for one in by_client(updates):
            moved = {name: one.weights[name].double() - before[name].double() for name in names}
            self.past[one.client] = [*self.past.get(one.client, []), moved][-self.log :]
        factors = self._factors(names)
        blended = []
        for one in by_client(updates):
            past = self.past[one.client]
            weights = dict(one.weights)
            for name in names:
                mean = torch.stack([each[name] for each in past]).mean(0)
                change = factors[name] * past[-1][name] + (1 - factors[name]) * mean
                weights[name] = (before[name].double() + change).to(before[name].dtype)
            blended.append(ClientUpdate(one.client, weights, one.examples))
        return combine(before, blended, lambda values: values.mean(0))

    def _factors(self, names: Sequence[str]) -> dict[str, float]:
        """Layer -> the inverse deviation of its updates' lengths relative to their mean; of the steadiest layer 1."""
        spread = {}
        for name in names:
            lengths = torch.tensor([float(each[name].norm()) for past in self.past.values() for each in past])
            spread[name] = float(lengths.std(correction=0) / (lengths.mean() + EPSILON)) + EPSILON
        least = min(spread.values())
        return {name: least / value for name, value in spread.items()}

    def state(self) -> dict[str, Tensor]:
        return {
            f"{age}/{name}/{client}": value
            for client, past in self.past.items()
            for age, each in enumerate(past)
            for name, value in each.items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.past = {}
        for key, value in state.items():
            age, name, client = key.split("/", 2)
            past = self.past.setdefault(client, [])
            past.extend({} for _ in range(int(age) + 1 - len(past)))
            past[int(age)][name] = value


def legato(*, log: Annotated[int, Ge(1), Le(100)] = 10) -> Strategy:
    """Blend each client's update, layer by layer, with the mean of its last `log` ones, and average the clients.

    factor_l u + (1 - factor_l) mean(log of u), factor_l the normalised inverse deviation of layer l's lengths.
    """
    return Legato(log)
