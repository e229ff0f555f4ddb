"""The number of examples that would show an open line, if its figure stayed as it is."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

from scipy import special

from expunge.evaluation.intervals import share
from expunge.evaluation.scores import Score

MOST = 1_000_000
"""Examples above which no number is given."""
COUNTED = ("_share", "_beyond")
"""Ends of the names of scores that count examples, whose intervals are Wilson's."""
WORST = "robustness_hidden_worst"
WORST_SHARE, WORST_MOST = 0.05, 10
"""The worst examples, over which this score is a mean: that share of all, and that many at most."""


def examples_needed(score: Score, half: float | None, room: float) -> int | None:
    """Examples (of a membership attack: a side) from which an interval of this spread ends within `room` of its value.

    half: the half-width towards the bound, of `score.n` examples; room: from the value to the bound. The smallest N
    with t(.975, N - 1) s / sqrt(N) <= room, s being the deviation that gives `half` at n; of a share, Wilson's interval
    itself. Clustered examples count by groups of today's size. None where the value lies beyond the bound, has no
    interval, or is of the worst examples and takes more than there ever are of those: then no number shows it.
    """
    units = score.groups or score.n
    if half is None or half <= 0 or room <= 0 or units < 2 or score.value is None:
        return None
    if score.name.endswith(COUNTED) and score.groups is None:
        value = score.value
        found = _smallest(lambda n: share(value * n, n).high - value <= room)
    else:
        deviation = half * units**0.5 / _quantile(units)
        found = _smallest(lambda n: _quantile(n) * deviation / n**0.5 <= room)
    if found is None:
        return None
    if score.name == WORST:
        return math.ceil(found / WORST_SHARE) if found <= WORST_MOST else None
    sides = 2 if score.unit == "auc" else 1  # n counts both
    return math.ceil(found * score.n / units / sides)


def _smallest(holds: Callable[[int], bool]) -> int | None:
    """The smallest number from 2 to `MOST` that holds, given that all larger ones do too."""
    found = bisect.bisect_left(range(2, MOST + 1), True, key=holds) + 2
    return found if found <= MOST else None


def _quantile(n: int) -> float:
    return float(special.stdtrit(n - 1, 0.975))
