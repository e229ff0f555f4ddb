"""Evidence of many runs -> rows of a leaderboard: means over runs, distance to gold, Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.evaluation import intervals
from expunge.report import variance

Row = dict[str, Any]
GAP = (
    ("forget_accuracy", "forget_probability", "forget_concept_rate"),
    ("retain_accuracy", "retain_probability", "retain_concept_rate"),
    ("test_accuracy", "holdout_accuracy", "holdout_probability", "test_concept_rate"),
    ("privacy_unseen_share", "privacy_min_k_auc", "robustness_class_embedding", "privacy_loss_auc"),
)
"""The figures in the average gap: from each line the first that was measured. Of a classifier these are the columns UA,
RA, TA and MIA of published tables; of a model that draws, how often it draws what it is asked for, and what comes back
under the attack on vectors; else probabilities and a membership AUC."""
UTILITY = ("retain_utility", "test_accuracy", "retain_accuracy", "retain_probability")
FORGETTING = ("forget_accuracy", "forget_probability", "forget_concept_rate", "forget_nll")
WORST = "privacy_worst"
"""A membership attack's distance to gold, of the worst attack."""
PRIVACY = ("privacy_min_k_auc", "privacy_loss_auc", "privacy_confidence_auc")
COST = {
    "seconds": "seconds",
    "slowdown": "times",
    "tokens": "count",
    "passes": "times",
    "forward": "times",
    "backward": "times",
}
"""Figures of the cost -> their units. passes, forward, backward: over those of the retraining."""
BACKWARD = 2
"""Forward passes that a backward pass counts as."""
NEVER_NEGATIVE = ("nats", "distance", "seconds", "bytes", "steps", "count", "times")
RANGES = {"share": (0.0, 1.0), "auc": (0.0, 1.0), **dict.fromkeys(NEVER_NEGATIVE, (0.0, float("inf")))}
"""The ends of a unit, at which the interval of a mean over runs is cut."""


@dataclass(frozen=True)
class Run:
    """The evidence of one run, and where it belongs in a bench."""

    evidence: Mapping[str, Any]
    world: str = ""
    base: int = 0


def values(evidence: Mapping[str, Any], role: str = "after") -> dict[str, float]:
    """Score -> measured figure of one role."""
    return {s["name"]: s["value"] for s in evidence["scores"] if s["subject"] == role and s["value"] is not None}


def units(evidences: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Score -> its unit."""
    return {s["name"]: s["unit"] for evidence in evidences for s in evidence["scores"]}


def gap_names(ours: Mapping[str, float], gold: Mapping[str, float]) -> list[str]:
    """The figures in the average gap between these two."""
    found = (next((name for name in line if name in ours and name in gold), None) for line in GAP)
    return [name for name in found if name]


def average_gap(ours: Mapping[str, float], gold: Mapping[str, float]) -> float | None:
    """Mean absolute distance to gold in percentage points; None without gold."""
    names = gap_names(ours, gold)
    return 100 * float(np.mean([abs(ours[name] - gold[name]) for name in names])) if names else None


def over_runs(
    found: Sequence[Mapping[str, float]], unit: Mapping[str, str], groups: Sequence[Any] | None = None
) -> tuple[Row, dict[str, list[float]]]:
    """(score -> mean over the runs, where every run has it; score -> 95 % interval with two or more runs).

    groups: what each run belongs to, where runs are clustered.
    """
    shared = [name for name in found[0] if all(name in one for one in found)] if found else []
    means = {name: float(np.mean([one[name] for one in found])) for name in shared}
    if len(found) < 2:
        return means, {}
    ends = {
        name: intervals.mean(
            np.array([one[name] for one in found]),
            *RANGES.get(unit[name], (-np.inf, np.inf)),
            groups=None if groups is None else np.array(groups),
        )
        if np.ptp([one[name] for one in found])
        else (means[name],) * 3
        for name in shared
    }
    return means, {name: [float(end[1]), float(end[2])] for name, end in ends.items()}


def clusters(runs: Sequence[Run]) -> list[Any] | None:
    """The world of each run, else its base, whichever there are several of: runs that share it resemble each other."""
    for names in ([run.world for run in runs], [run.base for run in runs]):
        if len(set(names)) > 1:
            return list(names)
    return None


def cost(evidence: Mapping[str, Any]) -> dict[str, float]:
    """The cost of a run: seconds, tokens, and passes over those of its gold, as far as they were measured."""
    spent = evidence["cost"]
    found = {"seconds": spent.get("unlearn_seconds"), "slowdown": spent.get("slowdown"), "tokens": spent.get("tokens")}
    own, gold = spent.get("passes") or {}, spent.get("gold_passes") or {}
    if own and gold.get("backward"):
        found |= {name: own[name] / gold[name] for name in ("forward", "backward")}
        found["passes"] = _in_forwards(own) / _in_forwards(gold)
    return {name: float(value) for name, value in found.items() if value is not None}


def _in_forwards(passes: Mapping[str, float]) -> float:
    return passes["forward"] + BACKWARD * passes["backward"]


def row(method: str, runs: Sequence[Run]) -> Row:
    """The row of one method, from its runs on all bases and with all seeds."""
    evidences = [run.evidence for run in runs]
    unit = {**units(evidences), **COST, "average_gap": "distance"}
    found = []
    for evidence in evidences:
        own = values(evidence)
        gap = average_gap(own, values(evidence, "gold"))
        found.append({**own, **({} if gap is None else {"average_gap": gap}), **cost(evidence)})
    means, ends = over_runs(found, unit, clusters(runs))
    verdicts = [evidence["verdict"]["passed"] for evidence in evidences]
    return {
        "method": method,
        "status": "done",
        "passed": None if None in verdicts else all(verdicts),
        "average_gap": None,
        "seconds": None,
        **means,
        "intervals": ends,
        "runs": len(evidences),
        **_by_setting(runs, found, unit),
        "headline": dict(evidences[0].get("headline") or {}),
        "lower": sorted(s["name"] for s in evidences[0]["scores"] if s["better"] == "lower"),
        "gap_over": gap_names(found[0], values(evidences[0], "gold")),
    }


def _by_setting(runs: Sequence[Run], found: Sequence[Mapping[str, float]], unit: Mapping[str, str]) -> Row:
    """The means of each base of each world, and the variance components of the figures; nothing for a single one."""
    settings = list(dict.fromkeys((run.world, run.base) for run in runs))
    if len(settings) < 2:
        return {}
    means = []
    for world, base in settings:
        own = [one for run, one in zip(runs, found, strict=True) if (run.world, run.base) == (world, base)]
        means.append({"world": world, "base": base, **over_runs(own, unit)[0]})
    ends = [{s["name"]: s for s in run.evidence["scores"] if s["subject"] == "after"} for run in runs]
    parts = {}
    for name in (name for name in ends[0] if all(name in one for one in found)):
        readings = [
            variance.Reading(run.world, run.base, one[name], _ends(scores[name]))
            for run, one, scores in zip(runs, found, ends, strict=True)
        ]
        if (of := variance.components(readings)) is not None:
            parts[name] = of
    return {"settings": means, **({"components": parts} if parts else {})}


def _ends(score: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if score["low"] is None or score["high"] is None else (score["low"], score["high"])


def failed_row(method: str, why: str) -> Row:
    """The row of a method that did not finish."""
    return {"method": method, "status": "failed", "why": why, "passed": None, "average_gap": None, "seconds": None}


def rank(rows: Iterable[Row]) -> list[Row]:
    """The rows: closest to gold first, then those without gold by name, the failed last."""

    def key(row: Row) -> tuple[bool, bool, float, str]:
        gap = row["average_gap"]
        return row["status"] != "done", gap is None, gap or 0.0, row["method"]

    return sorted(rows, key=key)


def first_shared(rows: Sequence[Row], names: Sequence[str]) -> str | None:
    """The first of the names that all finished rows have; None where there is none."""
    done = [row for row in rows if row["status"] == "done"]
    return next((name for name in names if done and all(row.get(name) is not None for row in done)), None)


def headline(rows: Sequence[Row], side: str) -> tuple[str, ...]:
    """The scores that the model's family names for a side."""
    return next((tuple(row["headline"].get(side, ())) for row in rows if "headline" in row), ())


def aims(rows: Sequence[Row], gold: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Side -> (score, row -> value to minimise): forgetting and privacy close to gold, utility high.

    A side without a figure that all rows have, or without gold, is left out.
    """
    found: dict[str, tuple[str, Any]] = {}
    if first_shared(rows, [WORST]):
        found["privacy"] = (WORST, lambda row: row[WORST])
    for side, names in (("forgetting", FORGETTING), ("privacy", () if found else PRIVACY)):
        own = names if side == "privacy" else (*names, *headline(rows, side))
        name = first_shared(rows, [name for name in own if gold.get(name) is not None])
        if name:
            found[side] = (name, lambda row, name=name: abs(row[name] - gold[name]))
    if name := first_shared(rows, (*UTILITY, *headline(rows, "utility"))):
        found["utility"] = (name, lambda row, name=name: row[name] if name in row.get("lower", ()) else -row[name])
    return found


def front(points: np.ndarray) -> np.ndarray:
    """[N] bool: the Pareto front of [N, K] points, each coordinate being better when smaller."""
    points = np.asarray(points, dtype=float)
    no_more = (points[None] <= points[:, None]).all(-1)
    less = (points[None] < points[:, None]).any(-1)
    return np.asarray(~np.any(no_more & less, axis=1))


def mark_front(rows: Sequence[Row], gold: Mapping[str, Any]) -> None:
    """Set `pareto` in each finished row: whether no other is both closer to gold and more useful."""
    done = [row for row in rows if row["status"] == "done"]
    sides = aims(rows, gold)
    if not done or len(sides) < 2:
        return
    best = front(np.array([[small(row) for _, small in sides.values()] for row in done]))
    for row, yes in zip(done, best, strict=True):
        row["pareto"] = bool(yes)
