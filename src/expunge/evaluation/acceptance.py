"""The acceptance criteria of a request (`accept:`), and the verdict on them.

`OP NUMBER [* before|gold|holdout]` or `within X of before|gold|holdout`, OP one of <= < >= > ==.
`before` and `gold` mean the same score of that role, `holdout` means the same metric on the
holdout (`forget.nll: "<= 1.2 * holdout"` compares with holdout_nll).

Under `erase` a criterion passes where its whole interval holds, under `suppress` where its value does.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from expunge.core.context import Watch
from expunge.core.errors import BadInput, did_you_mean
from expunge.evaluation.comparison import STRICT, Difference, Word, difference, word_for
from expunge.evaluation.sample_size import examples_needed
from expunge.evaluation.scores import ROLES, Score

Purpose = Literal["suppress", "erase"]
Bound = float | tuple[float, float]
REFERENCES = ("before", "gold", "holdout")
OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt, "==": operator.eq}
MAX_DRIFT = 0.05
"""Drift of a domain outside the request above which the verdict warns, unless a criterion names the drift."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_COMPARE = re.compile(rf"(<=|>=|==|<|>)\s*({_NUMBER})\s*(?:\*\s*(\w+))?")
_WITHIN = re.compile(rf"within\s+({_NUMBER})\s+of\s+(\w+)", re.IGNORECASE)
_FORMS = 'write for example "<= 0.4", ">= 0.95 * before" or "within 0.05 of gold"'


@dataclass(frozen=True)
class Criterion:
    """One line of `accept:`. reference: "before", "gold", "holdout", or "" for a plain number."""

    key: str
    text: str
    op: str
    """An operator, or "within"."""
    number: float
    reference: str = ""

    @property
    def score(self) -> str:
        """The name of the score that is judged: the key with its first dot as an underscore."""
        return self.key.replace(".", "_", 1)

    @property
    def counterpart(self) -> str:
        """The same metric's score on the holdout."""
        separator = "." if "." in self.key else "_"
        return f"holdout_{self.key.partition(separator)[2]}"

    def bound(self, reference: float = 1.0) -> Bound:
        """The number to compare a score with, given the reference's score; for `within` the two ends."""
        if self.op == "within":
            return reference - self.number, reference + self.number
        return self.number * reference

    def names_score(
        self, known: Iterable[str], roles: Iterable[str] = ROLES, units: Mapping[str, str] | None = None
    ) -> None:
        """Raises BadInput where the plan can produce no such score, or nothing to compare it with.

        known: the names of all scores that the plan can produce; roles: the models that it will read; units: of
        the scores that lie between 0 and 1.
        """
        known = set(known)
        if self.score not in known:
            dotted = (self.key.partition(".")[0] + "_", self.key.partition(".")[0] + ".")
            shown = {
                name.replace(*dotted, 1) if name.startswith(dotted[0]) and "." in self.key else name for name in known
            }
            raise BadInput.of(
                f"accept.{self.key}",
                self.text,
                "judges a score that this plan cannot produce",
                did_you_mean(self.key, shown),
            )
        if self.score in (units or {}) and not self.reference and not 0 <= self.number <= 1:
            fix = f"write {self.number / 100:g}" if 1 < self.number <= 100 else "give a number from 0 to 1"
            kind = "an AUC" if (units or {})[self.score] == "auc" else "a share"
            raise BadInput.of(f"accept.{self.key}", self.text, f"judges {kind}, which lies between 0 and 1", fix)
        if self.reference == "holdout" and self.counterpart not in known:
            raise BadInput.of(
                f"accept.{self.key}",
                self.text,
                f"compares with {self.counterpart}, which this plan cannot produce",
                "give a holdout, or compare with before or gold",
            )
        if self.reference in ROLES and self.reference not in set(roles):
            fix = "set gold: auto or a folder" if self.reference == "gold" else "write a number"
            raise BadInput.of(
                f"accept.{self.key}", self.text, f"compares with {self.reference}, which this plan does not read", fix
            )


@dataclass(frozen=True)
class Check:
    """The outcome of one criterion.

    bound: the number that the value was compared with (the two ends for `within`). flagged: the score's interval
    straddles the bound. implied: the criterion is not the user's but the purpose's. warns: it failed, but under this
    purpose it does not fail the verdict. word: for the whole interval, where the criterion compares with gold. needed:
    the examples that would show an open line, if its figure stayed (of a membership attack: a side).
    """

    rule: str
    passed: bool
    value: float | None = None
    bound: Bound | None = None
    why: str = ""
    flagged: bool = False
    implied: bool = False
    warns: bool = False
    word: Word | None = None
    needed: int | None = None

    def to_json(self) -> dict[str, Any]:
        shown = dataclasses.asdict(self)
        shown["bound"] = list(self.bound) if isinstance(self.bound, tuple) else self.bound
        return shown


@dataclass(frozen=True)
class Verdict:
    """The outcome of all checks; passed is None under `suppress` without a criterion."""

    passed: bool | None
    lines: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "lines": [line.to_json() for line in self.lines]}


def parse(key: str, text: object) -> Criterion:
    """One entry of `accept:` as a criterion. Raises BadInput."""
    where = f"accept.{key}"
    if isinstance(text, bool) or text is None:
        raise BadInput.of(where, text, "is not a criterion", _FORMS)
    if isinstance(text, int | float):
        raise BadInput.of(where, text, "does not say which way is better", f'write "<= {text}" or ">= {text}"')
    if not isinstance(text, str):
        raise BadInput.of(where, text, "is not a criterion", _FORMS)
    line = " ".join(text.split())
    if re.fullmatch(_NUMBER, line):
        raise BadInput.of(where, text, "does not say which way is better", f'write "<= {line}" or ">= {line}"')
    if found := _WITHIN.fullmatch(line):
        op, number, reference = "within", float(found[1]), found[2].lower()
        if number < 0:
            raise BadInput.of(where, text, "has a negative margin", "write it without the sign")
    elif found := _COMPARE.fullmatch(line):
        op, number, reference = found[1], float(found[2]), (found[3] or "").lower()
    else:
        raise BadInput.of(where, text, "cannot be read", _fix(line))
    if not math.isfinite(number):
        raise BadInput.of(where, text, "holds no finite number", _FORMS)
    if reference and reference not in REFERENCES:
        raise BadInput.of(
            where, text, f"compares with {reference!r}, which is not a reference", did_you_mean(reference, REFERENCES)
        )
    return Criterion(key, line, op, number, reference)


def _fix(line: str) -> str:
    slips = {"≤": "<=", "≥": ">=", "=<": "<=", "=>": ">="}
    for slip, meant in slips.items():
        if slip in line:
            return f"write {meant!r} for {slip!r}"
    if re.match(r"=[^=]", line):
        return "write '==' for '='"
    if percent := re.search(rf"({_NUMBER})\s*%", line):
        return f"write the share {float(percent[1]) / 100:g} for {percent[0]}"
    return _FORMS


def verdict(
    criteria: Sequence[Criterion],
    scores: Sequence[Score],
    *,
    purpose: Purpose = "suppress",
    extra: Iterable[Check] = (),
) -> Verdict:
    """Compare the scores of the role "after" with all criteria.

    A score that is not measured, or on no example, fails its check. extra: the implied checks. One that fails makes the
    verdict fail under the purpose "erase", and else only warns. Under "erase" the verdict is never None: without
    criteria the implied checks decide, and without any check nothing is shown.
    """
    table = by_name(scores)
    lines = [check(criterion, table, purpose) for criterion in criteria]
    implied = [dataclasses.replace(line, implied=True) for line in extra]
    if ("alignment_drift", "after") in table and all(criterion.score != "alignment_drift" for criterion in criteria):
        implied.append(check(parse("alignment.drift", f"<= {MAX_DRIFT}"), table, purpose))
    implied = [
        dataclasses.replace(line, implied=True, warns=not line.passed and purpose != "erase") for line in implied
    ]
    everything = (*lines, *implied)
    failing = any(not line.passed and not line.warns for line in everything)
    if purpose == "erase":
        return Verdict(bool(everything) and not failing, everything)
    return Verdict(False if failing else True if lines else None, everything)


OF_CURVE = ("forget_", "retain_")
"""First words of the figures that a training curve may have."""


def watch(criteria: Sequence[Criterion]) -> Watch | None:
    """(point of the training curve, its first point) -> share of the criteria that it meets.

    Criteria on figures that the curve does not have, or that need gold or the holdout, are left out; None where none
    is left.
    """
    readable = [one for one in criteria if one.reference in ("", "before") and one.score.startswith(OF_CURVE)]

    def share(point: Mapping[str, float], first: Mapping[str, float]) -> float:
        on_curve = [one for one in readable if one.score in point]
        met = 0
        for one in on_curve:
            bound = one.bound(first[one.score] if one.reference == "before" else 1.0)
            met += _holds(one.op, point[one.score], bound)
        return met / len(on_curve) if on_curve else 0.0

    return share if readable else None


Table = dict[tuple[str, str], Score]


def by_name(scores: Iterable[Score]) -> Table:
    """The scores by (name, role); of a score on several splits the first has the bare name."""
    table: Table = {}
    scores = list(scores)
    for score in scores:
        table.setdefault((score.name, score.role), score)
    # A domain's own score is named after it: alignment.refusal_score.privacy.
    return table | {(f"{score.name}.{score.split}", score.role): score for score in scores if score.side == "alignment"}


def check(criterion: Criterion, table: Table, purpose: Purpose = "suppress") -> Check:
    """Compare one criterion with the scores, by (name, role)."""
    rule = f"{criterion.key} {criterion.text}"
    score = table.get((criterion.score, "after"))
    if score is None or score.value is None or not score.n:
        return Check(rule, False, why=missing(criterion.score, "after", score))
    bound, reference = criterion.bound(), None
    if criterion.reference:
        key = (criterion.score, criterion.reference)
        name, role = (criterion.counterpart, "after") if criterion.reference == "holdout" else key
        reference = table.get((name, role))
        if reference is None or reference.value is None or not reference.n:
            return Check(rule, False, score.value, why=missing(name, role, reference))
        bound = criterion.bound(reference.value)
    apart = _difference(criterion, score, reference, table)
    word = word_for(criterion.op, apart, criterion.number if criterion.op == "within" else 0.0)
    passed = word == "shown" if purpose == "erase" else _holds(criterion.op, score.value, bound)
    edges = bound if isinstance(bound, tuple) else (bound,)
    flagged = score.low is not None and score.high is not None and any(score.low < edge < score.high for edge in edges)
    gold = criterion.reference == "gold"
    remarks, needed = [score.why], None
    if word == "open" and (gold or purpose == "erase"):
        remarks.insert(0, _why_open(apart))
        needed = _examples_for(criterion, score, apart)
    elif flagged:
        remarks.insert(0, f"the interval [{score.low:.4g}, {score.high:.4g}] straddles the bound")
    why = "; ".join(filter(None, remarks))
    return Check(rule, passed, score.value, bound, why, flagged, word=word if gold else None, needed=needed)


def _examples_for(criterion: Criterion, score: Score, apart: Difference) -> int | None:
    """The examples that would show the criterion."""
    if apart.low is None or apart.high is None:
        return None
    below, above = apart.value - apart.low, apart.high - apart.value
    if criterion.op == "within":
        return examples_needed(score, max(below, above), criterion.number - abs(apart.value))
    if criterion.op in (">", ">="):
        return examples_needed(score, below, apart.value)
    return examples_needed(score, above, -apart.value) if criterion.op in ("<", "<=") else None


def _difference(criterion: Criterion, score: Score, reference: Score | None, table: Table) -> Difference:
    """The score less what it is compared with."""
    if reference is None:
        return difference(score, criterion.number)
    gap = table.get((f"{criterion.score}_gap", "after")) if criterion.reference == "gold" else None
    return difference(score, reference, 1.0 if criterion.op == "within" else criterion.number, gap)


def _why_open(apart: Difference) -> str:
    if apart.low is None or apart.high is None:
        return "one example does not show a spread"
    return f"the difference has the interval [{apart.low:.4g}, {apart.high:.4g}], which the bound cuts"


def _holds(op: str, value: float, bound: Bound) -> bool:
    """Compares up to rounding: 0.55 is within 0.05 of 0.5 although 0.55 - 0.5 > 0.05 in binary."""
    if isinstance(bound, tuple):
        return any(_equal(value, edge) for edge in bound) or bound[0] < value < bound[1]
    if _equal(value, bound):
        return op not in STRICT
    return bool(OPERATORS[op](value, bound))


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def missing(name: str, role: str, score: Score | None) -> str:
    """The reason why a score cannot be judged."""
    of = "" if role == "after" else f" of {role}"
    why = score.why if score else "no such score in this run"
    return f"{name}{of} is not measured: {'no example counts' if score and score.measured else why}"
