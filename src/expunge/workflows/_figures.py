"""Compares certified figures with those just measured, and names the checks that rest on figures that were not.

Nothing that the evidence says of itself decides how a figure is compared: unit, side, the better direction, the number
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
"""(name, split, role)."""
Table = dict[Key, Score]

UNSETTLED = ("seconds", "bytes")
"""Units of figures that differ from one reading to the next."""
MAX_WIDTH_RATIO = 2.0
"""Factor between the widths of two intervals of one figure, measured on two machines."""
ROUNDING = 1e-4
"""Change that rounding on another machine may make, relative to 1 or to the figure, whichever is larger."""


def table(shown: Iterable[Any]) -> Table:
    """Scores as `evidence.json` holds them, by name, split and role."""
    return {key(score): score for score in map(Score.of, shown)}


def key(score: Score) -> Key:
    """The name, split and role of a score."""
    return score.name, score.split, score.role


def repeated_scores(shown: Iterable[Any]) -> list[str]:
    """The scores that are in more than one row; no run writes such."""
    seen: set[Key] = set()
    found = []
    for score in map(Score.of, shown):
        if key(score) in seen:
            found.append(title(key(score)))
        seen.add(key(score))
    return found


def title(of: Key) -> str:
    """A score in words."""
    name, split, role = of
    return f"{name} ({', '.join(filter(None, (role, split)))})"


def is_comparable(ours: Score, *, equal: bool) -> bool:
    """True where the value can be compared with another reading; without an interval only in the same environment."""
    return ours.unit not in UNSETTLED and (equal or not ours.measured or ours.low is not None)


def difference(certified: Score, ours: Score, *, equal: bool, reasons: bool = True) -> str:
    """A sentence on the first difference; "" where there is none.

    equal: compare to the last bit. reasons: compare also why a score is not measured.
    """
    if certified.measured != ours.measured:
        return f"certified as {_figure(certified)}, now {_figure(ours)}"
    fields = ("unit", "side", "better", "n", "groups", *(("why",) if equal and reasons else ()))
    for name in fields:
        if getattr(certified, name) != getattr(ours, name):
            return f"certified with {name} {getattr(certified, name)!r}, now {getattr(ours, name)!r}"
    if (certified.low is None, certified.high is None) != (ours.low is None, ours.high is None):
        return f"certified as {_figure(certified)}, now {_figure(ours)}"
    if not certified.measured or not is_comparable(ours, equal=equal):
        return ""
    same = (
        (certified.value, certified.low, certified.high) == (ours.value, ours.low, ours.high)
        if equal
        else _alike(certified, ours)
    )
    return "" if same else f"certified as {_figure(certified)}, now {_figure(ours)}"


def _alike(certified: Score, ours: Score) -> bool:
    """True where the certified value lies in our interval, and its own interval has a similar place and width."""
    if certified.value is None or certified.low is None or certified.high is None:
        return False
    if ours.value is None or ours.low is None or ours.high is None:
        return False
    noise = ROUNDING * max(1.0, abs(ours.value))
    width, theirs = ours.high - ours.low, certified.high - certified.low
    inside = ours.low - noise <= certified.value <= ours.high + noise
    wide = theirs <= MAX_WIDTH_RATIO * width + noise and width <= MAX_WIDTH_RATIO * theirs + noise
    near = max(abs(certified.low - ours.low), abs(certified.high - ours.high)) <= width + noise
    return inside and wide and near


def _figure(score: Score) -> str:
    if score.value is None:
        return f"not measured ({score.why})"
    between = "" if score.low is None or score.high is None else f" [{score.low:.6g}, {score.high:.6g}]"
    return f"{score.value:.6g}{between}, n {score.n}"


def reordered_scores(certified: Table, ours: Table) -> list[str]:
    """Scores of which another split's is first now: a criterion that names no split takes the first."""
    first: list[dict[tuple[str, str], str]] = []
    for scores in (certified, ours):
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


def resting_checks(evidence: Mapping[str, Any], certified: Table, unshown: set[Key]) -> list[str]:
    """The checks with another outcome, or none, without the figures that were not measured again."""
    left = {
        canonical(line.to_json()) for line in _checks(evidence, (s for k, s in certified.items() if k not in unshown))
    }
    return [line.rule for line in _checks(evidence, certified.values()) if canonical(line.to_json()) not in left]


def turned_checks(evidence: Mapping[str, Any], certified: Table, ours: Table) -> list[str]:
    """The checks with another outcome by the figures measured now."""
    mixed = [ours[k] if k in ours and ours[k].measured else score for k, score in certified.items()]
    now = {line.rule: line.passed for line in _checks(evidence, mixed)}
    return [
        f"verdict: {line.rule}: certified as {_outcome(line.passed)}, now {_outcome(now[line.rule])}"
        for line in _checks(evidence, certified.values())
        if now.get(line.rule, line.passed) != line.passed
    ]


def _checks(evidence: Mapping[str, Any], scores: Iterable[Score]) -> tuple[Check, ...]:
    request = evidence["request"]
    guard = evidence["yields"] == "guard"
    return judged(request.get("accept") or {}, list(scores), request.get("purpose", "suppress"), guard=guard).lines


def _outcome(passed: bool) -> str:
    return "passed" if passed else "failed"
