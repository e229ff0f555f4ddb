"""The mean of clipped changes with Gaussian noise, of which each client adds a part."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from scipy.special import ndtri
from torch import Tensor

from expunge.core.card import Card
from expunge.core.random import generator
from expunge.methods._strategy import Strategy
from expunge.training.updates import ClientUpdate, State, combine, digest_of, floating

CARD = Card(
    "Noise divided over the clients (hybrid, HybridAlpha)",
    paper="arXiv:1812.03224",
    equation="section 4",
    means="Where secure aggregation shows the server nothing but the sum, t honest clients need only a share of the "
    "noise each, its deviation over the root of t, for the same guarantee of the sum. The sum alone is shown under "
    "`encrypt: ckks` or `paillier`. Noise that follows from a seed protects from nobody who knows the seed; with "
    "`secret: true` it is drawn from the system.",
)


class Private(Strategy):
    """Clip and add noise at the clients, average: every client counts alike. Noise follows from seed, client and the
    round's model: a departure's rounds are counted from one again, and noise that came twice could be subtracted."""

    adds = True

    def __init__(self, clip: float, noise: float, trust: float, seed: int, delta: float, secret: bool = False) -> None:
        super().__init__()
        self.clip, self.noise, self.trust, self.seed, self.delta = clip, noise, trust, seed, delta
        self.secret = secret

    def __call__(self, before: State, updates: Sequence[ClientUpdate]) -> State:
        return combine(before, updates, lambda values: values.mean(0))

    def share(self, update: ClientUpdate) -> int:
        return 1

    def least(self, count: int) -> int:
        return max(1, round(self.trust * count))

    def protect(self, before: State, update: ClientUpdate, count: int) -> ClientUpdate:
        names = floating(before)
        moved = {name: update.weights[name].double() - before[name].double() for name in names}
        length = math.sqrt(sum(float(part.square().sum()) for part in moved.values()))
        factor = min(1.0, self.clip / length) if length else 1.0
        draw = generator(self.seed, "private", update.client, digest_of(before))
        deviation = share_of_noise(self.noise * self.clip, round(self.trust * count))
        weights = dict(update.weights)
        for name in names:
            shape = moved[name].shape
            normal = secret_normal(shape) if self.secret else torch.randn(shape, generator=draw, dtype=torch.float64)
            weights[name] = (before[name].double() + moved[name] * factor + deviation * normal).to(before[name].dtype)
        return ClientUpdate(update.client, weights, update.examples)

    def guarantee(self, rounds: int) -> dict[str, Any]:
        bound = epsilon(self.noise, rounds, self.delta) if self.noise and rounds else None
        of = "sum" if self.trust else "message"
        return {"epsilon": bound, "delta": self.delta, "of": of, "rounds": rounds, "secret": self.secret}


def share_of_noise(deviation: float, honest: int) -> float:
    """A client's part of a noise of this deviation, where so many honest clients add one and only the sum is seen."""
    return deviation / math.sqrt(max(1, honest))


def secret_normal(shape: torch.Size) -> Tensor:
    """Standard normal draws from the system's generator, in float64: quantiles of 53 random bits each."""
    bits = np.frombuffer(secrets.token_bytes(8 * shape.numel()), dtype=np.uint64)
    return torch.from_numpy(ndtri(((bits >> np.uint64(11)) + 0.5) * 2.0**-53)).reshape(shape)


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
    secret: bool = False,
) -> Strategy:
    """Average the clients' changes, each cut to a length of `clip` and noised.

    noise: deviation of the noise of the sum, over the clip: `epsilon` says what it guarantees. trust: the share of the
    clients that is honest; 0: no secure aggregation, where each client adds the whole noise. seed: of the noise.
    delta: at which evidence and report give epsilon. secret: noise from the system's generator in place of the seed's,
    which nobody can draw again: neither can the training be repeated bit for bit.
    """
    return Private(clip, noise, trust, seed, delta, secret)
