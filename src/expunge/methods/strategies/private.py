"""The mean of clipped changes with Gaussian noise, of which each client adds a part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from expunge.core.card import Card
from expunge.core.random import generator
from expunge.methods._strategy import Strategy
from expunge.training.updates import ClientUpdate, State, by_client, combine, floating

CARD = Card(
    "Noise divided over the clients (hybrid, HybridAlpha)",
    paper="arXiv:1812.03224",
    equation="section 4",
    means="Where secure aggregation shows the server nothing but the sum, t honest clients need only a share of the "
    "noise each, its deviation over the root of t, for the same guarantee of the sum. Here nothing is encrypted, and "
    "the noise follows from a seed: what the shares of noise cost in accuracy is real, the protection is not.",
)


class Private(Strategy):
    """Clip, add noise, average: every client counts alike. The state is the number of rounds, from which noise
    follows."""

    def __init__(self, clip: float, noise: float, trust: float, seed: int, delta: float) -> None:
        super().__init__()
        self.clip, self.noise, self.trust, self.seed, self.delta, self.rounds = clip, noise, trust, seed, delta, 0

    def __call__(self, before: State, updates: Sequence[ClientUpdate]) -> State:
        self.rounds += 1
        sent = [self._protect(before, one, len(updates)) for one in by_client(updates)]
        return combine(before, sent, lambda values: values.mean(0))

    def _protect(self, before: State, one: ClientUpdate, count: int) -> ClientUpdate:
        """The update as its client would send it into the sum."""
        names = floating(before)
        moved = {name: one.weights[name].double() - before[name].double() for name in names}
        length = math.sqrt(sum(float(part.square().sum()) for part in moved.values()))
        factor = min(1.0, self.clip / length) if length else 1.0
        draw = generator(self.seed, "private", self.rounds, one.client)
        deviation = share_of_noise(self.noise * self.clip, round(self.trust * count))
        weights = dict(one.weights)
        for name in names:
            part = moved[name] * factor + deviation * torch.randn(
                moved[name].shape, generator=draw, dtype=torch.float64
            )
            weights[name] = (before[name].double() + part).to(before[name].dtype)
        return ClientUpdate(one.client, weights, one.examples)

    def guarantee(self, rounds: int) -> dict[str, Any]:
        bound = epsilon(self.noise, rounds, self.delta) if self.noise and rounds else None
        return {"epsilon": bound, "delta": self.delta, "of": "sum" if self.trust else "message", "rounds": rounds}

    def state(self) -> dict[str, Tensor]:
        return {"rounds": torch.tensor(self.rounds)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.rounds = int(state["rounds"])


def share_of_noise(deviation: float, honest: int) -> float:
    """A client's part of a noise of this deviation, where so many honest clients add one and only the sum is seen."""
    return deviation / math.sqrt(max(1, honest))


def epsilon(noise: float, rounds: int, delta: float) -> float:
    """The epsilon of the sum after so many rounds, for adding or removing a client (Renyi DP, arXiv:1702.07476).

    noise: deviation over the clip. All clients take part in each round: rounds / (2 noise**2) + sqrt(2 rounds
    ln(1/delta)) / noise, the least over all orders a of rounds a / (2 noise**2) + ln(1/delta) / (a - 1).
    """
    return rounds / (2 * noise**2) + math.sqrt(2 * rounds * math.log(1 / delta)) / noise


def private(
    *,
    clip: Annotated[float, Gt(0)] = 1.0,
    noise: Annotated[float, Ge(0)] = 1.0,
    trust: Annotated[float, Ge(0), Le(1)] = 1.0,
    seed: Annotated[int, Ge(0)] = 0,
    delta: Annotated[float, Gt(0), Lt(1)] = 1e-5,
) -> Strategy:
    """Average the clients' changes, each cut to a length of `clip` and noised.

    noise: deviation of the noise of the sum, over the clip: `epsilon` says what it guarantees. trust: the share of the
    clients that is honest; 0: no secure aggregation, where each client adds the whole noise. seed: of the noise.
    delta: at which evidence and report give epsilon.
    """
    return Private(clip, noise, trust, seed, delta)
