"""Orders of the slices, and what a deletion leaves of them: the bookkeeping of S3T.

A shard is trained once for each of its orderings; stage i of an ordering has seen the slices in its places 1..i. A
deletion from a slice ends every ordering at the place before it. SISA that serves from its checkpoints instead of
retraining is the case of one ordering per shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from expunge.core.random import permutation


def cyclic(slices: int, orderings: int) -> list[list[int]]:
    """The first `orderings` rotations of 0..slices-1, evenly spaced: each puts another slice first.

    arXiv:2406.16257, section 3.3: with up to `slices` orderings no arrangement has more slices in first place, on which
    the number of deletions depends. orderings: at most `slices`.
    """
    starts = [round(b * slices / orderings) for b in range(orderings)]
    return [[(start + i) % slices for i in range(slices)] for start in starts]


@dataclass
class Sequences:
    """Orderings of each shard, and the stages of each that still serve.

    orders: [shard][ordering] -> slices in training order. active: [shard][ordering] -> stages that still serve.
    """

    orders: list[list[list[int]]]
    active: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.active = self.active or [[len(order) for order in shard] for shard in self.orders]

    def delete(self, shard: int, piece: int) -> None:
        """End each ordering of the shard before its first stage that has seen the slice."""
        for b, order in enumerate(self.orders[shard]):
            self.active[shard][b] = min(self.active[shard][b], order.index(piece))

    def best(self, shard: int) -> int | None:
        """Find the ordering with the most stages left, the first of equals; None where none has any."""
        stages = self.active[shard]
        return stages.index(max(stages)) if max(stages) > 0 else None

    @property
    def alive(self) -> bool:
        """True while any shard still serves."""
        return any(self.best(shard) is not None for shard in range(len(self.orders)))

    def at_least(self) -> int:
        """Count the requests of one example that can be served for certain: each may end one more first slice."""
        firsts = [
            {order[0] for order, left in zip(shard, stages, strict=True) if left}
            for shard, stages in zip(self.orders, self.active, strict=True)
        ]
        return max(0, sum(map(len, firsts)) - 1)

    def serve(self, stream: Iterable[tuple[int, int]]) -> int:
        """Serve requests of (shard, slice) until nothing is left; return how many were served."""
        count = 0
        for shard, piece in stream:
            self.delete(shard, piece)
            if not self.alive:
                break
            count += 1
        return count


def expected_requests(sequences: Sequences, sizes: Sequence[Sequence[int]], seed: int, trials: int = 32) -> float:
    """Mean number of requests of one example, drawn without replacement, served before retraining.

    sizes: [shard][slice] -> examples.
    """
    pool = [(k, i) for k, shard in enumerate(sizes) for i, count in enumerate(shard) for _ in range(count)]
    total = 0
    for trial in range(trials):
        copy = Sequences(sequences.orders, [list(stages) for stages in sequences.active])
        total += copy.serve(pool[j] for j in permutation(len(pool), seed, "requests", trial))
    return total / trials
