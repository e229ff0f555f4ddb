"""A step in parts: rows of near-equal length are forwarded together, each part padded to its own longest row.

The loss stays that of the whole batch: means are over all of its examples or positions, whatever part they are in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from expunge.core import processes
from expunge.core.contracts import Model
from expunge.training.pace import FLOPS

LAUNCH = {"cuda": 7.5e-4, "cpu": 2e-3, "mps": 1e-3}
"""Rough seconds that a forward and a backward through a block take, however few tokens they have."""
WEIGHTS = {"cuda": 200.0, "cpu": 16.0, "mps": 50.0}
"""Tokens whose products take as long as reading the weights once more and adding to their gradients."""
ENDS = 64
"""Places at which a batch may be cut at most: the search takes time with their square."""


@dataclass(frozen=True)
class Place:
    """The rows of one place of a step: one of each stream, but for those that were dropped. length: of the longest."""

    rows: int
    length: int


@dataclass(frozen=True)
class Cutting:
    """How batches are cut. overhead: padded tokens that another part costs; most and least: places of a part.

    At least one for each process, which all have a share of every part.
    """

    overhead: float = math.inf
    most: int | None = None
    least: int = 1

    @classmethod
    def of(cls, model: Model, size: int | str | None) -> Cutting:
        """For a model on this kind of device, from shapes alone; whole batches where examples influence each other, or
        there are no weights.

        size: places that a process has of a part at most; "auto" or None where lengths alone decide.
        """
        parameters = sum(parameter.numel() for parameter in model.module.parameters())
        if model.coupled or not parameters:
            return cls()
        device = processes.device().type
        launch = LAUNCH.get(device, LAUNCH["cpu"]) * max(1, len(model.blocks))
        token = 6 * parameters / FLOPS.get(device, FLOPS["cpu"])
        overhead = launch / token + WEIGHTS.get(device, WEIGHTS["cpu"])
        world = processes.world()
        return cls(world * overhead, world * size if isinstance(size, int) else None, world)

    def cut(self, places: Sequence[Place]) -> list[list[int]]:
        """The places by part, in their own order within it: sorted by length, cut where padding and overhead cost
        least. One whole part where nothing is gained."""
        order = sorted(range(len(places)), key=lambda i: (places[i].length, i))
        if self.most is not None:
            ends = [*range(self.most, len(order), self.most), len(order)]
        elif math.isinf(self.overhead):
            ends = [len(order)]
        else:
            ends = self._cheapest([places[i] for i in order])
        return [sorted(order[first:last]) for first, last in itertools.pairwise([0, *ends])]

    def _cheapest(self, places: Sequence[Place]) -> list[int]:
        """The ends of the parts of least cost, of places in length order."""
        rows = [0, *itertools.accumulate(place.rows for place in places)]
        stride = max(self.least, -(-len(places) // ENDS))
        starts, cost, before = [0], {0: 0.0}, {0: 0}
        for end in [*range(stride, len(places) - self.least + 1, stride), len(places)]:
            longest = places[end - 1].length if end else 0
            found = [(cost[start] + (rows[end] - rows[start]) * longest + self.overhead, start) for start in starts]
            cost[end], before[end] = min(found)
            starts.append(end)
        ends = [len(places)]
        while before[ends[0]] > 0:
            ends.insert(0, before[ends[0]])
        return ends
