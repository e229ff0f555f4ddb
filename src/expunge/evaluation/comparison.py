"""A score compared with another one: the difference with its interval, and the word for it.

A difference is *shown* to keep a bound where its whole interval does, *refuted* where the whole interval breaks it,
and *open* otherwise (two one-sided tests, Schuirmann 1987, at 2.5 % each): few examples leave a comparison open.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from expunge.evaluation.scores import WITHOUT_INTERVAL, Score

Word = Literal["shown", "refuted", "open"]
STRICT = ("<", ">")


class Difference(NamedTuple):
    """A difference with the ends of its 95 % interval; without ends where one example leaves the spread unknown."""

    value: float
    low: float | None = None
    high: float | None = None


def difference(score: Score, reference: Score | float, factor: float = 1.0, gap: Score | None = None) -> Difference:
    """score - factor * reference, both measured.

    The interval adds the half-widths of the two in quadrature (MOVER, Zou and Donner 2008), which is conservative where
    the same examples are behind both. gap: the mean of score - reference over the same examples; where it counts as
    many as both, its own interval takes the place of theirs, and what factor - 1 adds is added without quadrature.
    """
    own = _ends(score)
    if isinstance(reference, Score):
        value, ends = reference.value or 0.0, _ends(reference)
    else:
        value, ends = reference, (reference, reference)
    centre = (score.value or 0.0) - factor * value
    if own is None or ends is None:
        return Difference(centre)
    paired = _ends(gap) if gap is not None else None
    if (
        isinstance(reference, Score)
        and gap is not None
        and gap.value is not None
        and paired is not None
        and gap.n == score.n == reference.n
    ):
        rest = (1 - factor) * value
        low, high = sorted((1 - factor) * end for end in ends)
        below, above = gap.value - paired[0] + rest - low, paired[1] - gap.value + high - rest
        return Difference(centre, centre - below, centre + above)
    low, high = sorted(factor * end for end in ends)
    return Difference(
        centre,
        centre - math.hypot((score.value or 0.0) - own[0], high - factor * value),
        centre + math.hypot(own[1] - (score.value or 0.0), factor * value - low),
    )


def word_for(op: str, found: Difference, margin: float = 0.0) -> Word:
    """The word for `difference OP 0`; for `within` for a difference of at most `margin` either way.

    Without an interval it is open at best.
    """
    lowest = -math.inf if op in ("<=", "<") else -margin
    highest = math.inf if op in (">=", ">") else margin
    low, high = (found.value, found.value) if found.low is None or found.high is None else (found.low, found.high)
    if _exceeds(lowest - high, op) or _exceeds(low - highest, op):
        return "refuted"
    inside = not _exceeds(lowest - low, op) and not _exceeds(high - highest, op)
    return "shown" if inside and found.low is not None else "open"


def _exceeds(excess: float, op: str) -> bool:
    """Whether the excess over an end breaks the bound, up to rounding."""
    if math.isclose(excess, 0.0, abs_tol=1e-12):
        return op in STRICT
    return excess > 0


def _ends(score: Score) -> tuple[float, float] | None:
    """The score's interval; its value twice where its unit has none; None where one example leaves it unknown."""
    if score.low is not None and score.high is not None:
        return score.low, score.high
    if score.unit in WITHOUT_INTERVAL and score.value is not None:
        return score.value, score.value
    return None
