"""Federated averaging with a pull of each client towards the round's global model."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.card import Card, MethodCard
from expunge.core.contracts import LossTerm, Run, Step, Term
from expunge.methods._strategy import Strategy
from expunge.training.updates import State, mean_by_examples

CARD = Card(
    "FedProx",
    paper="arXiv:1812.06127",
    equation="2",
    means="Clients with unlike data drift less far from one another within a round.",
)


class Pull(LossTerm):
    """mu/2 times the squared distance of the parameters from those that the round began with, or from those of `to`."""

    def __init__(self, mu: float, to: State | None = None) -> None:
        super().__init__()
        self.mu, self.to = mu, to

    def prepare(self, run: Run) -> None:
        named = {name: p for name, p in run.model.module.named_parameters() if p.requires_grad}
        self.now = list(named.values())
        to = named if self.to is None else self.to
        self.start = [to[name].detach().clone().to(p.device) for name, p in named.items()]

    def __call__(self, step: Step) -> Tensor:
        squares = [(p - start).square().sum() for p, start in zip(self.now, self.start, strict=True)]
        return step.share * self.mu / 2 * torch.stack(squares).sum()


class FedProx(Strategy):
    """The mean by examples, of clients that train with `Pull`."""

    averages = True

    def __init__(self, mu: float) -> None:
        super().__init__(mean_by_examples, averages=True)
        self.mu = mu

    def terms(self) -> dict[str, Term]:
        return {"pull": Term.of("pull", Pull(self.mu), MethodCard("Pull towards the global model"))}


def fedprox(*, mu: Annotated[float, Ge(0)] = 0.01) -> Strategy:
    """Average the clients' models, whose local loss adds mu/2 times their squared distance from the global one."""
    return FedProx(mu)
