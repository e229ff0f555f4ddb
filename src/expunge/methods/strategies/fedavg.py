"""Federated averaging."""

from __future__ import annotations

from expunge.core.card import Card
from expunge.methods._strategy import Strategy
from expunge.training.updates import mean_by_examples

CARD = Card(
    "Federated averaging",
    paper="arXiv:1602.05629",
    equation="algorithm 1",
    means="The mean of the clients' models by their examples. One client can move it as far as it likes.",
)


def fedavg() -> Strategy:
    """Average the clients' models, each by its number of examples."""
    return Strategy(mean_by_examples, averages=True)
