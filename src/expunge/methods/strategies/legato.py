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
    means="Each layer's update is blended with the mean of the last rounds', the more so the less steady its size is. "
    "It filters nobody: it takes the jitter out of the rounds, not the drift, so that noise far out of scale still "
    "gets through. In a network of several layers every one is blended; in one of two layers the steadier hardly is. "
    "It wins back a part of what averages lose to noise, and was not seen to keep what the honest clients reach alone. "
    "Written from a description of the algorithm; updates of weights stand for gradients.",
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
        """Tensor -> the factor of its layer: the inverse deviation of the layer's lengths in the log, of all layers
        together 1."""
        layers: dict[str, list[str]] = {}
        for name in names:
            layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
        logged = [each for past in self.past.values() for each in past]
        steadiness = {}
        for layer, own in layers.items():
            squares_N = torch.stack([self._squares(logged, name) for name in own]).sum(0)
            steadiness[layer] = 1 / (float(squares_N.sqrt().std(correction=0)) + EPSILON)
        total = sum(steadiness.values())
        return {name: steadiness[layer] / total for layer, own in layers.items() for name in own}

    @staticmethod
    def _squares(logged: Sequence[State], name: str) -> Tensor:
        """[N] the squared lengths of a tensor's updates."""
        return torch.stack([each[name] for each in logged]).flatten(1).square().sum(1)

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

    factor_l u + (1 - factor_l) mean(log of u), factor_l the inverse deviation of layer l's lengths over the log and the
    clients, brought to a sum of 1 over the layers. A layer is a module's own tensors together.
    """
    return Legato(log)
