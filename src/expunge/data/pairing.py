"""Which rows meet in which step: a pure function of (seed, stage, step)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from expunge.core.card import Example
from expunge.core.random import derive, permutation
from expunge.data.examples import identity

WINDOW = 8
"""Batches whose rows are sorted by length together, at most; a third of an epoch where that is less, so
that epochs and seeds still mix."""


@dataclass(frozen=True)
class Pairing:
    """Rows of each split by step. `anchor` is the split whose pass is an epoch.

    sizes: split -> examples. Every anchor row has one partner of each other split: the i-th drawn
    anchor row meets the i-th row of an endless seeded shuffle of that split.
    length: (split, row) -> tokens. With it, rows that meet are of near-equal length (less padding):
    windows of batches are sorted by length, in each split alike, and then the batches are shuffled.
    """

    anchor: str
    sizes: Mapping[str, int]
    batch_size: int
    seed: int
    stage: str
    length: Callable[[str, int], int] | None = None
    _epochs: dict[tuple[str, int], list[int]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.sizes[self.anchor] // self.batch_size)

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def rows(self, split: str, step: int) -> list[int]:
        """Indices into the split at this step; the last step of an epoch may be short."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first = within * self.batch_size
        return self._epoch(split, epoch)[first : first + self.batch_size]

    def _epoch(self, split: str, epoch: int) -> list[int]:
        """Rows of the split in an epoch, in the order in which they are drawn."""
        if (split, epoch) not in self._epochs:
            for old in [key for key in self._epochs if key[1] < epoch - 1]:
                del self._epochs[old]
            count = self.sizes[self.anchor]
            rows = [self._row(split, epoch * count + i) for i in range(count)]
            self._epochs[split, epoch] = self._sort_rows(split, epoch, rows) if self.length else rows
        return self._epochs[split, epoch]

    def _sort_rows(self, split: str, epoch: int, rows: list[int]) -> list[int]:
        assert self.length is not None
        length = functools.partial(self.length, split)
        size = self.batch_size
        full = len(rows) // size  # the last batch may be short, so it stays last
        wide = size * max(1, min(WINDOW, full // 3))
        near = [row for w in range(0, len(rows), wide) for row in sorted(rows[w : w + wide], key=length)]
        order = permutation(full, self.seed, self.stage, "batches", epoch)
        return [row for b in [*order, full] for row in near[b * size : (b + 1) * size]]

    def _row(self, split: str, i: int) -> int:
        lap, place = divmod(i, self.sizes[split])
        return _order(self.sizes[split], self.seed, self.stage, split, lap)[place]

    def rows_of_steps(self, split: str, steps: int) -> list[int]:
        """Every row of the split that the first `steps` steps draw, each once, sorted."""
        return sorted({row for step in range(steps) for row in self.rows(split, step)})


@functools.lru_cache(maxsize=64)
def _order(n: int, seed: int, stage: str, split: str, lap: int) -> list[int]:
    return permutation(n, seed, stage, split, lap)


def by_hash(rows: Sequence[Example], seed: int) -> list[Example]:
    """Rows in an order that follows each row's own identity: removing one moves no other."""
    return sorted(rows, key=lambda row: derive(seed, identity(row)))
