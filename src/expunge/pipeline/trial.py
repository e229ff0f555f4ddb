"""One trial of `method: auto` or a repair, and the outcome of the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from expunge.evaluation.acceptance import Check, Verdict
from expunge.pipeline.apply import Applied
from expunge.pipeline.comparison import Comparison
from expunge.pipeline.plan import Plan

UTILITY = ("retain", "neighbours", "general", "test", "utility")
"""First words of the scores that a gentler method keeps better."""
TOO_MUCH = ("(over-forgetting)", "(gibberish)")
"""Ends of the implied lines that a model misses which forgot too much."""


@dataclass(frozen=True)
class Trial:
    """The outcome of one strength. shortfall: how far its failing lines are from passing, in all."""

    rung: int
    passed: bool
    lost: tuple[str, ...]
    """The failing lines that a gentler method meets: on what must stay, and on too much forgetting."""
    left: tuple[str, ...]
    """The other failing lines whose figure misses its bound: on what must go."""
    undecided: tuple[str, ...]
    """The failing lines whose figure meets its bound, though its interval does not: more examples decide these."""
    shortfall: float
    tokens: int
    seconds: float
    passes: dict[str, int]

    @classmethod
    def of(cls, rung: int, verdict: Verdict, applied: Applied, tokens: int) -> Trial:
        failing = [line for line in verdict.lines if not line.passed and not line.warns]
        missed = [line for line in failing if _misses(line)]
        lost = tuple(line.rule for line in missed if _must_stay(line.rule))
        left = tuple(line.rule for line in missed if line.rule not in lost)
        undecided = tuple(line.rule for line in failing if line not in missed)
        far = len(undecided) + sum(2 + _distance(line) for line in missed)
        return cls(rung, not failing, lost, left, undecided, round(far, 6), tokens, applied.seconds, applied.passes)

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        given: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
        return cls(**given)


def _must_stay(rule: str) -> bool:
    """Whether a line is on what must stay: utility, forgetting that went too far, and alignment, but for a refusal
    score that is to fall."""
    falls = "refusal_score" in rule and "<" in rule
    return rule.startswith(UTILITY) or rule.endswith(TOO_MUCH) or (rule.startswith("alignment") and not falls)


def next_repair(done: Sequence[Trial], lines: Sequence[str]) -> int | None:
    """The rung of a repair to try next, lines being the way of each rung; None where no more of the change should go.

    The first trial is the harmed model. Along a way more of the change is taken back while something that must stay is
    lost; once something that was forgotten is known again, the next way follows.
    """
    first, last = done[0], done[-1]
    back = set(last.left) - set(first.left)
    if last.passed or not (last.lost or back):
        return None
    rest = range(last.rung + 1, len(lines))
    return next((rung for rung in rest if not back or lines[rung] != lines[last.rung]), None)


def repair_remark(kept: str, trials: Sequence[Trial]) -> str:
    """The outcome of a repair in a sentence. kept: the best trial, in words."""
    if trials[0].passed:
        return "The model meets every line as it was given: nothing of the change was taken back."
    if any(trial.passed for trial in trials):
        return f"Repaired: {kept} meets every line."
    if len(trials) == 1 and not trials[0].lost:
        return "Not repaired: the lines that the model misses are not on what must stay, and a repair only gives back."
    return f"Not repaired: no way that was tried meets every line. Kept is the nearest: {kept}."


def _misses(line: Check) -> bool:
    """Whether a failing line's figure itself is beyond its bound, or unknown."""
    if line.value is None or line.bound is None:
        return True
    if isinstance(line.bound, tuple):
        return not line.bound[0] <= line.value <= line.bound[1]
    return line.value < line.bound if ">" in line.rule else line.value > line.bound


def _distance(line: Check) -> float:
    """Distance of a failing line's value from its bound, from 0 to 1; 1 where either is unknown."""
    if line.value is None or line.bound is None:
        return 1.0
    ends = line.bound if isinstance(line.bound, tuple) else (line.bound,)
    return min(1.0, min(abs(line.value - end) / max(abs(end), 1e-9) for end in ends))


@dataclass(frozen=True)
class Tried:
    """The outcome of the method: its plan, what it did, and its model beside those that it is compared with.

    trials: of `method: auto` or a repair, all in the order in which they were tried; the rest is of the best one.
    ended_by_cost: whether another strength was left that would have cost too much.
    """

    plan: Plan
    applied: Applied
    compared: Comparison
    trials: tuple[Trial, ...] = ()
    ended_by_cost: bool = False
