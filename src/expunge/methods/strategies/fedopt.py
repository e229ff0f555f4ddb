"""Averaging whose result an optimiser of the server takes for a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from expunge.core.card import Card
from expunge.methods._strategy import Strategy
from expunge.training.updates import ClientUpdate, State, floating, mean_by_examples

CARD = Card(
    "FedOpt: FedAdam, FedYogi, FedAdagrad",
    paper="arXiv:2003.00295",
    equation="algorithm 2",
    means="Weights whose mean change is small or rare move further than under plain averaging; buffers are averaged.",
)


class FedOpt(Strategy):
    """The server's steps, and both moments of the pseudo-gradient by the name of the weight."""

    adds = True

    def __init__(self, optimizer: str, rate: float, beta1: float, beta2: float, tau: float) -> None:
        super().__init__()
        self.optimizer, self.rate, self.beta1, self.beta2, self.tau = optimizer, rate, beta1, beta2, tau
        self.first: State = {}
        self.second: State = {}

    def __call__(self, before: State, updates: Sequence[ClientUpdate]) -> State:
        exact = {name: value.double() if value.is_floating_point() else value for name, value in before.items()}
        after = mean_by_examples(exact, updates)
        for name in floating(before):
            if not is_statistic(name):
                after[name] = exact[name] + self._step(name, after[name] - exact[name])
            after[name] = after[name].to(before[name].dtype)
        return after

    def _step(self, name: str, change: Tensor) -> Tensor:
        """The server's step along the clients' mean change, in float64."""
        first = self.first.get(name, torch.zeros_like(change))
        second = self.second.get(name, torch.full_like(change, self.tau**2))
        square = change.square()
        first = self.beta1 * first + (1 - self.beta1) * change
        if self.optimizer == "adam":
            second = self.beta2 * second + (1 - self.beta2) * square
        elif self.optimizer == "yogi":
            second = second - (1 - self.beta2) * square * (second - square).sign()
        else:
            second = second + square
        self.first[name], self.second[name] = first, second
        return self.rate * first / (second.sqrt() + self.tau)

    def state(self) -> dict[str, Tensor]:
        moments = {"first": self.first, "second": self.second}
        return {f"{moment}/{name}": value for moment, state in moments.items() for name, value in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.first, self.second = (
            {key.removeprefix(moment): value for key, value in state.items() if key.startswith(moment)}
            for moment in ("first/", "second/")
        )


def is_statistic(name: str) -> bool:
    """Whether a tensor of this name is a running mean or variance, which no gradient moves."""
    return name.endswith(("running_mean", "running_var"))


def fedopt(
    *,
    optimizer: Literal["adam", "yogi", "adagrad"] = "adam",
    rate: Annotated[float, Gt(0)] = 0.01,
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.99,
    tau: Annotated[float, Gt(0)] = 0.001,
) -> Strategy:
    """Move the global model by an optimiser's step along the clients' mean change: rate * m / (sqrt(v) + tau).

    m and v: the decayed mean of the change and of its square, without a correction for the first rounds, from 0 and
    tau squared on; `adagrad` sums the squares, and `yogi` lets v move by no more than (1 - beta2) times the square.
    Clients count by their examples. Running means and variances of BatchNorm are averaged.
    """
    return FedOpt(optimizer, rate, beta1, beta2, tau)
