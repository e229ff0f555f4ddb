"""A binary classifier's answers after equalised-odds post-processing, as the ensemble applies them.

The rates are fitted by the exact scheme `fairsisa`; this file only looks them up. Shape suffixes:
M members, N examples, C cells of a score, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.data.examples import identity

LEAST = 1e-3
"""Nothing is answered with less doubt than this, so that losses stay finite."""


@dataclass(frozen=True)
class Fair:
    """way: what the rates depend on. "shards": each member's own class; "votes": the class of the mean
    distribution; "scores": the cell of the mean probability of class 1.

    rates: [M or 1][C][G] probability of answering 1. edges: the cells' inner bounds of "scores".
    groups: value of the field `group` -> its place.
    """

    way: str
    rates: Any
    edges: list[float]
    groups: dict[str, int]
    seed: int

    @classmethod
    def of(cls, state: Any) -> Fair | None:
        return (
            cls(state["way"], state["rates"], list(state["edges"]), dict(state["groups"]), int(state["seed"]))
            if state
            else None
        )

    def places(self, examples: Sequence[Example]) -> Tensor:
        """[B, 2]: the example's group, and its own draw in [0, 1) which settles randomised answers.

        Raises BadInput for a group that the rates were not fitted for.
        """
        found = []
        for i, example in enumerate(examples):
            group = str(example.get("group"))
            if group not in self.groups:
                raise BadInput.of(
                    f"row {i + 1}",
                    group,
                    "is not a group that the model was made fair for",
                    f"give each example a `group`, one of {', '.join(self.groups)}",
                )
            found.append([float(self.groups[group]), derive(self.seed, "fair", identity(example)) / 2**63])
        return torch.tensor(found, dtype=torch.float64).reshape(-1, 2)

    def repair(self, mean_NV: Tensor, each_MNV: Tensor, place_N2: Tensor) -> Tensor:
        """Log-probabilities [N, 2] of the fair answers, from log-probabilities before.

        The class of an answer is drawn by the example's own draw, so that it is the same each time.
        """
        rates = torch.tensor(self.rates, dtype=torch.float64, device=mean_NV.device)
        group_N = place_N2[:, 0].long()
        cells_MN = self.cells(mean_NV, each_MNV)
        p_N = torch.stack([rates[m][cells_MN[m], group_N] for m in range(len(rates))]).mean(0)
        one_N = place_N2[:, 1] < p_N
        sure_N = torch.maximum(p_N, 1 - p_N).clamp(0.5 + LEAST, 1 - LEAST)
        answer_N = torch.where(one_N, sure_N, 1 - sure_N)
        return torch.stack([1 - answer_N, answer_N], -1).log().to(mean_NV.dtype)

    def cells(self, mean_NV: Tensor, each_MNV: Tensor) -> Tensor:
        """[M or 1, N]: the cell of each example."""
        if self.way == "shards":
            return each_MNV.argmax(-1)
        if self.way == "votes":
            return mean_NV.argmax(-1)[None]
        edges = torch.tensor(self.edges, dtype=torch.float64, device=mean_NV.device)
        return torch.bucketize(mean_NV[:, 1].exp().double(), edges, right=True)[None]
