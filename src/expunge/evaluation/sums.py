"""Scores of examples that lie with several clients: each sends sums of its own, and never the value of one example.

A mean or a share over all examples follows from the clients' counts, means and squared deviations, and so does its
interval: both are those of the examples in one place. What is no such mean (an AUC, a harmonic mean, a figure that
compares two splits, one whose interval is clustered) is measured by each client on its own rows alone, and the score is
the mean over the clients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core import registry
from expunge.core.card import MetricCard
from expunge.evaluation import intervals
from expunge.evaluation.scores import RANGES, WITHOUT_INTERVAL, Score

EQUAL = 1e-9
"""Difference to which a rule must give a client's own figure again, to be the rule by which it was made."""
RULES = ("share", "mean")


@dataclass(frozen=True)
class Sums:
    """A client's score without the values of its examples. squares: the sum of their squared deviations from the mean.

    rules: of RULES, those by which value and interval follow from the examples' values; none where they do not.
    """

    score: Score
    squares: float = 0.0
    rules: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """For the message."""
        return {"score": self.score.to_json(), "squares": self.squares, "rules": sorted(self.rules)}

    @classmethod
    def of(cls, sent: Any) -> Sums:
        """From what `to_json` gave. Raises ValueError where it is none."""
        if not isinstance(sent, dict) or sent.keys() != {"score", "squares", "rules"}:
            raise ValueError("no sums of a score")
        squares, rules = float(sent["squares"]), frozenset(sent["rules"])
        if not (np.isfinite(squares) and squares >= 0 and rules <= {*RULES}):
            raise ValueError("sums that no values have")
        return cls(Score.of(sent["score"]), squares, rules)


def sums_of(score: Score) -> Sums:
    """One of a client's scores as it leaves the client."""
    bare = dataclasses.replace(score, values=None, others=None)
    if not score.measured or score.values is None or score.groups is not None or not _by_row(score):
        return Sums(bare)
    values = np.ma.masked_array(score.values, dtype=float).compressed()
    if not len(values) or len(values) != score.n:
        return Sums(bare)
    centre, squares = float(values.mean()), float(np.square(values - values.mean()).sum())
    allowed = RULES if np.isin(values, (0.0, 1.0)).all() else RULES[1:]
    made = frozenset(rule for rule in allowed if _same(score, _figure(rule, score.unit, score.n, centre, squares)))
    return Sums(bare, squares, made)


def _by_row(score: Score) -> bool:
    """Whether an example's value follows from the example alone: not an AUC, nor what reads another split beside."""
    name = score.name.removesuffix("_gap").removesuffix("_beyond")
    for kind in ("metrics", "attacks"):
        for beginning in (score.split, score.side):
            plugin = name.removeprefix(f"{beginning}_")
            if plugin != name and plugin in registry.names(kind):
                card: MetricCard = registry.load(kind, plugin).card
                return score.unit != "auc" and len({place.rpartition(".")[2] for place in card.needs}) == 1
    return False


def pool(sent: Iterable[Sequence[Sums]]) -> list[Score]:
    """The scores of all examples, from what each client sent, in the order in which they come first."""
    by_score: dict[tuple[str, str, str], list[Sums]] = {}
    clients = list(sent)
    for some in clients:
        for one in some:
            by_score.setdefault((one.score.name, one.score.split, one.score.role), []).append(one)
    return [_pool(found, alone=len(clients) == 1) for found in by_score.values()]


def _pool(sent: Sequence[Sums], *, alone: bool) -> Score:
    measured = [one for one in sent if one.score.measured]
    if not measured or alone:
        return sent[0].score
    if len(measured) == 1:
        score = measured[0].score
        why = "" if measured[0].rules else "one client's own figure, of its rows alone"
        return dataclasses.replace(score, why="; ".join(filter(None, [why, score.why])))
    scores = [one.score for one in measured]
    rules = frozenset.intersection(*(one.rules for one in measured))
    remarks = "; ".join(sorted({score.why for score in scores if score.n > 1} - {""}))
    if rules:
        count, centre, squares = _moments(measured)
        rule = next(rule for rule in RULES if rule in rules)
        return _with(scores[0], _figure(rule, scores[0].unit, count, centre, squares), n=count, why=remarks)
    if scores[0].unit in WITHOUT_INTERVAL or any(score.low is None for score in scores):
        why = "no client holds all examples that it takes"
        return dataclasses.replace(scores[0], value=None, low=None, high=None, n=0, status="not measured", why=why)
    why = f"the mean over {len(scores)} clients, by their examples, of each one's own figure"
    groups = None if any(score.groups is None for score in scores) else sum(score.groups or 0 for score in scores)
    why = "; ".join(filter(None, [why, remarks]))
    n = sum(score.n for score in scores)
    return _with(scores[0], _mean_of_figures(scores), n=n, groups=groups, why=why)


def _moments(sent: Sequence[Sums]) -> tuple[int, float, float]:
    """(count, mean, squared deviations) of all examples (Chan et al. 1979)."""
    count = sum(one.score.n for one in sent)
    means = [(one.score.n, one.score.value or 0.0) for one in sent]
    centre = sum(n * mean for n, mean in means) / count
    return count, centre, sum(one.squares for one in sent) + sum(n * (mean - centre) ** 2 for n, mean in means)


def _figure(rule: str, unit: str, count: int, centre: float, squares: float) -> intervals.Interval:
    if rule == "share":
        return intervals.share(centre * count, count)
    return intervals.mean_of_sums(count, centre, squares, *RANGES.get(unit, (-np.inf, np.inf)))


def _mean_of_figures(scores: Sequence[Score]) -> intervals.Interval:
    """The mean of independent figures by their examples; ends by the squared distances to their own (Zou 2008)."""
    count = sum(score.n for score in scores)
    parts = [(score.n / count, score.value or 0.0, score.low or 0.0, score.high or 0.0) for score in scores]
    value = sum(w * v for w, v, _, _ in parts)
    below = sum((w * (v - low)) ** 2 for w, v, low, _ in parts) ** 0.5
    above = sum((w * (high - v)) ** 2 for w, v, _, high in parts) ** 0.5
    return intervals.Interval(value, value - below, value + above)


def _same(score: Score, figure: intervals.Interval) -> bool:
    ends = (score.value, figure.value), (score.low, figure.low), (score.high, figure.high)
    return all(ours is None or abs(ours - theirs) <= EQUAL * max(1.0, abs(theirs)) for ours, theirs in ends)


def _with(score: Score, figure: intervals.Interval, **fields: Any) -> Score:
    return dataclasses.replace(score, value=figure.value, low=figure.low, high=figure.high, **fields)
