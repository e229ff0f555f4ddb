"""The client whose model lies nearest to its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Lt

from expunge.core.card import Card
from expunge.methods._strategy import Strategy
from expunge.training.updates import ClientUpdate, State, by_client, distance, mean_by_examples

CARD = Card(
    "Krum and multi-Krum",
    paper="arXiv:1703.02757",
    equation="section 4",
    means="A client's score is the sum of its squared distances to its n - f - 2 nearest others, f of n being hostile. "
    "Honest clients with unlike data look hostile to it too.",
)


def krum(*, hostile: Annotated[float, Ge(0), Lt(0.5)] = 0.2, keep: Annotated[int, Ge(1)] = 1) -> Strategy:
    """Take the model with the least squared distances to its nearest others, or the mean of `keep` such ones.

    hostile: the share of clients that may send what they like. Distances are of differences taken in float64: the
    expansion into squares and products cancels between models that are nearly equal.
    """

    def aggregate(before: State, updates: Sequence[ClientUpdate]) -> State:
        ordered = by_client(updates)
        near = max(1, len(ordered) - int(hostile * len(ordered)) - 2)
        scores = []
        for one in ordered:
            others = sorted(distance(one.weights, other.weights) ** 2 for other in ordered if other is not one)
            scores.append((sum(others[:near]), one.client))
        best = {client for _, client in sorted(scores)[:keep]}
        return mean_by_examples(before, [one for one in ordered if one.client in best])

    return Strategy(aggregate)
