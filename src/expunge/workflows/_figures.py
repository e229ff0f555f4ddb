"""Certified figures held against those just measured, and what of the verdict rests on figures that were not.

Nothing that the evidence says of itself decides how a figure is compared: unit, side, which way is better, the number
of examples and the interval are those of the figure just measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from expunge.core.files import canonical
from expunge.evaluation.acceptance import Check
from expunge.evaluation.scores import Score
from expunge.pipeline.hidden_knowledge import judged

Key = tuple[str, str, str]
"""(name, split, model)."""
Table = dict[Key, Score]

UNSETTLED = ("seconds", "bytes")
"""Units of figures that differ from one reading to the next."""
LIKE = 2.0
"""Factor between the widths of two intervals of one figure, measured on two machines."""
NOISE = 1e-4
"""What rounding on another machine may move, of a figure around 1 or, if it is larger, of the figure."""


def table(shown: Iterable[Any]) -> Table:
    """Scores as `evidence.json` holds them, by what they are of."""
    return {key(score): score for score in map(Score.of, shown)}


def key(score: Score) -> Key:
    """Name, split and model: what a figure is of."""
    return score.name, score.split, score.role


def twice(shown: Iterable[Any]) -> list[str]:
    """The figures that stand in more than one row; no run writes such."""
    seen: set[Key] = set()
    found = []
    for score in map(Score.of, shown):
        if key(score) in seen:
            found.append(named(key(score)))
        seen.add(key(score))
    return found


def named(of: Key) -> str:
    """A figure in words."""
    name, split, role = of
    return f"{name} ({', '.join(filter(None, (role, split)))})"


def comparable(ours: Score, *, equal: bool) -> bool:
    """Can the value be held against another reading; without an interval only in the same environment."""
    return ours.unit not in UNSETTLED and (equal or not ours.measured or ours.low is not None)


def difference(told: Score, ours: Score, *, equal: bool, reasons: bool = True) -> str:
    """What differs; "" where nothing does. equal: to the last bit. reasons: also why a figure is not measured."""
    if told.measured != ours.measured:
        return f"certified as {_figure(told)}, now {_figure(ours)}"
    fields = ("unit", "side", "better", "n", "groups", *(("why",) if equal and reasons else ()))
    for name in fields:
        if getattr(told, name) != getattr(ours, name):
            return f"certified with {name} {getattr(told, name)!r}, now {getattr(ours, name)!r}"
    if (told.low is None, told.high is None) != (ours.low is None, ours.high is None):
        return f"certified as {_figure(told)}, now {_figure(ours)}"
    if not told.measured or not comparable(ours, equal=equal):
        return ""
    same = (told.value, told.low, told.high) == (ours.value, ours.low, ours.high) if equal else _alike(told, ours)
    return "" if same else f"certified as {_figure(told)}, now {_figure(ours)}"


def _alike(told: Score, ours: Score) -> bool:
    """Does the certified value lie in our interval, and is its own interval of like place and width."""
    if told.value is None or told.low is None or told.high is None:
        return False
    if ours.value is None or ours.low is None or ours.high is None:
        return False
    noise = NOISE * max(1.0, abs(ours.value))
    width, theirs = ours.high - ours.low, told.high - told.low
    inside = ours.low - noise <= told.value <= ours.high + noise
    wide = theirs <= LIKE * width + noise and width <= LIKE * theirs + noise
    near = max(abs(told.low - ours.low), abs(told.high - ours.high)) <= width + noise
    return inside and wide and near


def _figure(score: Score) -> str:
    if score.value is None:
        return f"not measured ({score.why})"
    between = "" if score.low is None or score.high is None else f" [{score.low:.6g}, {score.high:.6g}]"
    return f"{score.value:.6g}{between}, n {score.n}"


def reordered(told: Table, ours: Table) -> list[str]:
    """Figures of which another split's stands first: a bar that names no split takes the first."""
    first: list[dict[tuple[str, str], str]] = []
    for scores in (told, ours):
        found: dict[tuple[str, str], str] = {}
        for name, split, role in scores:
            found.setdefault((name, role), split)
        first.append(found)
    return [
        f"{name} ({role}): the first is of {split}, now of {first[1][name, role]}"
        for (name, role), split in first[0].items()
        if first[1].get((name, role), split) != split
    ]


# -- the verdict -----------------------------------------------------------------------------------


def resting(evidence: Mapping[str, Any], told: Table, unshown: set[Key]) -> list[str]:
    """The verdict's lines that come out otherwise, or not at all, without the figures that were not measured again."""
    left = {canonical(line.to_json()) for line in _lines(evidence, (s for k, s in told.items() if k not in unshown))}
    return [line.rule for line in _lines(evidence, told.values()) if canonical(line.to_json()) not in left]


def turned(evidence: Mapping[str, Any], told: Table, ours: Table) -> list[str]:
    """The verdict's lines that come out otherwise by the figures measured now."""
    mixed = [ours[k] if k in ours and ours[k].measured else score for k, score in told.items()]
    now = {line.rule: line.passed for line in _lines(evidence, mixed)}
    return [
        f"verdict: {line.rule}: certified as {_outcome(line.passed)}, now {_outcome(now[line.rule])}"
        for line in _lines(evidence, told.values())
        if now.get(line.rule, line.passed) != line.passed
    ]


def _lines(evidence: Mapping[str, Any], scores: Iterable[Score]) -> tuple[Check, ...]:
    request = evidence["request"]
    guard = evidence["yields"] == "guard"
    return judged(request.get("accept") or {}, list(scores), request.get("purpose", "suppress"), guard=guard).lines


def _outcome(passed: bool) -> str:
    return "passed" if passed else "failed"
