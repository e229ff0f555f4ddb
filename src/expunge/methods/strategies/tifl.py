"""Clients in tiers by how fast they answer: a round takes clients of one tier."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.card import Card
from expunge.core.errors import BadInput, did_you_mean
from expunge.data.clients import Clients
from expunge.methods._strategy import Strategy
from expunge.training.updates import mean_by_examples

CARD = Card(
    "Tiers of clients (TiFL)",
    paper="arXiv:2001.09249",
    equation="algorithms 1 and 2",
    means="A round lasts as long as its slowest client: one of fast clients is short. Response times are simulated, a "
    "client's rows times its pace. Where slow clients hold what others do not, `fast` never learns it; `adaptive` "
    "turns to the tier whose accuracy is worst, which did not show within 25 rounds. Written from a description of the "
    "algorithms.",
)
UNKNOWN = -1.0
"""Accuracy of a tier that was not measured yet."""


class TiFL(Strategy):
    """The mean by examples, of clients of one tier. The state: each tier's chance, credits and accuracy."""

    looks = True

    def __init__(self, tiers: int, policy: str, pace: Mapping[str, float], every: int, rounds_each: int) -> None:
        super().__init__(mean_by_examples, averages=True)
        self.count, self.policy, self.pace, self.every = tiers, policy, dict(pace), every
        self.chances, self.credits = torch.ones(tiers) / tiers, torch.full((tiers,), float(rounds_each))
        self.accuracies = torch.full((tiers,), UNKNOWN)
        self.latest = 0

    def fits(self, clients: Clients, where: str) -> None:
        for name in self.pace:
            if name not in clients:
                raise BadInput.of(f"{where}.tifl.pace", name, "unknown client", did_you_mean(name, clients))
        if len(clients) < self.count:
            why = f"is more than the {len(clients)} clients"
            raise BadInput.of(f"{where}.tifl.tiers", self.count, why, "give fewer tiers")

    def seconds(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Client -> its simulated response time, in times of a row at a pace of 1."""
        return {name: size * float(self.pace.get(name, 1.0)) for name, size in sizes.items()}

    def tiers(self, sizes: Mapping[str, int]) -> list[list[str]]:
        """The clients in groups of nearly equal size, the fastest first. Raises BadInput where there are too few."""
        if len(sizes) < self.count:
            why = f"is more than the {len(sizes)} clients"
            raise BadInput.of("trainer.federation.strategy.tifl.tiers", self.count, why, "give fewer tiers")
        seconds = self.seconds(sizes)
        order = sorted(sizes, key=lambda name: (seconds[name], name))
        ends = [round(len(order) * i / self.count) for i in range(self.count + 1)]
        return [order[first:last] for first, last in itertools.pairwise(ends)]

    def choose(self, sizes: Mapping[str, int], count: int, draw: Callable[[str], int]) -> list[str]:
        """At most so many clients of one tier, drawn by the tiers' chances; under "fast" always of the first."""
        tiers = self.tiers(sizes)
        self.latest = 0 if self.policy == "fast" else self._tier(draw("tier") / 2**63)
        self.credits[self.latest] -= 1
        return sorted(tiers[self.latest], key=draw)[:count]

    def _tier(self, place: float) -> int:
        """The tier at a place in [0, 1) of the chances of those that have credits left; of all where none has."""
        left = self.chances * (self.credits > 0) if self.policy == "adaptive" else self.chances
        shares = (left if left.sum() > 0 else self.chances).double()
        ends = (shares / shares.sum()).cumsum(0)
        return min(int(torch.searchsorted(ends, torch.tensor(place).double(), right=True)), self.count - 1)

    def judge(self, number: int, sizes: Mapping[str, int], accuracy: Callable[[Sequence[str]], float]) -> None:
        """Every few rounds: where the tier of this round did not get better, tiers get chances by how bad they are."""
        if self.policy != "adaptive" or number % self.every:
            return
        now = torch.tensor([accuracy(tier) for tier in self.tiers(sizes)])
        if self.accuracies[self.latest] != UNKNOWN and now[self.latest] <= self.accuracies[self.latest]:
            places = now.argsort(descending=True, stable=True).argsort()
            self.chances = (places + 1.0) / (places + 1.0).sum()
        self.accuracies = now

    def state(self) -> dict[str, Tensor]:
        return {
            "chances": self.chances.clone(),
            "credits": self.credits.clone(),
            "accuracies": self.accuracies.clone(),
            "latest": torch.tensor(self.latest),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.chances, self.credits, self.accuracies = state["chances"], state["credits"], state["accuracies"]
        self.latest = int(state["latest"])


def tifl(
    *,
    tiers: Annotated[int, Ge(1), Le(100)] = 5,
    policy: Literal["uniform", "adaptive", "fast"] = "uniform",
    pace: Mapping[str, Annotated[float, Gt(0)]] | None = None,
    every: Annotated[int, Ge(1)] = 5,
    credits: Annotated[int, Ge(1)] = 1000,
) -> Strategy:
    """Average the models of clients of one tier, all of which answer about equally fast.

    tiers: their number. policy: of the choice of a tier: alike; adaptive, more often those of low accuracy; always the
    fastest. pace: client -> simulated time per row, 1 where it is not named. every: rounds between two looks at the
    tiers' accuracy, which each client measures on its own rows. credits: rounds that adaptive gives a tier at most.
    """
    return TiFL(tiers, policy, pace or {}, every, credits)
