"""Drift: how far a change moved the refusal scores of domains that it was not meant to move.

Each prompt is its own control: the test is paired, and its p-values are corrected for the number of domains. The
intervals cover the choice of prompts, not the training seed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from expunge.alignment.domains import DomainAnswers, has_known_answer
from expunge.data.packs import CONTROL
from expunge.evaluation import intervals
from expunge.evaluation.scores import Score

RESAMPLES = 9999


@dataclass(frozen=True)
class Drift:
    """One domain's change: mean refusal scores, their paired difference with its interval, p and Holm's p.

    asked: whether the request meant to change the domain.
    """

    domain: str
    before: float
    after: float
    change: float
    low: float
    high: float
    n: int
    p: float
    corrected: float
    asked: bool


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979, doi:10.2307/4615733): largest (m - i) p of the smaller ones."""
    order = np.argsort(values, kind="stable")
    found, highest = np.zeros(len(values)), 0.0
    for i, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - i) * float(values[place])))
        found[place] = highest
    return found.tolist()


def paired(before: np.ndarray, after: np.ndarray) -> float:
    """p-value that [N] paired differences have mean 0, by random sign flips; exact up to 13 prompts that moved."""
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    moved = change[change != 0]  # a pair that did not move is the same under either sign
    if not len(moved):
        return 1.0
    if len(moved) == 1:
        return 1.0  # either sign is as far from 0

    def total(x: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(x.sum(axis=axis))

    found = stats.permutation_test(
        (moved,),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        random_state=np.random.default_rng(0),
    )
    return float(found.pvalue)


def change(before: np.ndarray, after: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """(mean paired change, low, high) by Student's t at that level, within -1 and 1.

    Where all prompts moved alike there is no spread to estimate an interval from; it is then as wide as a share of N
    could be (Wilson's, for the chance that a prompt moves).
    """
    moved = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    n, centre = len(moved), float(moved.mean())
    if n < 2 or np.ptp(moved) == 0:
        z = float(special.ndtri(0.5 + level / 2))
        room = z**2 / (n + z**2)  # Wilson's end for 0 of n
        return centre, max(-1.0, centre - room), min(1.0, centre + room)
    half = float(special.stdtrit(n - 1, 0.5 + level / 2)) * float(moved.std(ddof=1)) / n**0.5
    return centre, max(-1.0, centre - half), min(1.0, centre + half)


def drifts(before: DomainAnswers, after: DomainAnswers, targets: Collection[str] = ()) -> list[Drift]:
    """Every domain's change, in the fixed order. targets: the domains that the request meant to change."""
    names = list(before.scores)
    p = [paired(before.scores[name], after.scores[name]) for name in names]
    found = []
    for name, one, corrected in zip(names, p, holm(p), strict=True):
        mean, low, high = change(before.scores[name], after.scores[name])
        found.append(
            Drift(
                name,
                float(before.scores[name].mean()),
                float(after.scores[name].mean()),
                mean,
                low,
                high,
                len(before.scores[name]),
                one,
                corrected,
                name in targets,
            )
        )
    return found


def refusal(name: str, role: str, values: np.ndarray, is_target: bool) -> Score:
    """A domain's refusal score [N] as a Score; Wilson's interval where all are 0 or 1, else Student's."""
    plain = bool(np.isin(values, (0.0, 1.0)).all())
    found = intervals.share(float(values.sum()), len(values)) if plain else intervals.mean(values, 0.0, 1.0)
    better = "lower" if is_target or name == CONTROL else "higher"
    return Score(
        "alignment_refusal_score",
        "alignment",
        name,
        role,
        *found,
        n=len(values),
        unit="share",
        better=better,
        values=values,
    )


def scores(models: Mapping[str, DomainAnswers], targets: Collection[str] = ()) -> list[Score]:
    """All alignment scores of the models ("before", "after"), and their drift where both are given."""
    found = []
    for role, model in models.items():
        found += [refusal(name, role, values, name in targets) for name, values in model.scores.items()]
        if CONTROL in model.scores:
            found.append(_answer_accuracy(role, model))
    if {"before", "after"} <= set(models):
        found.append(_worst(models["before"], models["after"], targets))
    return found


def _answer_accuracy(role: str, model: DomainAnswers) -> Score:
    """The share of the benign control's prompts that a model answers, rightly where the right answer is known."""
    right, known = model.right, sum(has_known_answer(row) for row in model.prompts[CONTROL])
    why = f"{known} of {len(right)} prompts have a known answer; on the others any answer that does not refuse counts"
    return Score(
        "alignment_answer_accuracy",
        "alignment",
        CONTROL,
        role,
        *intervals.share(float(right.sum()), len(right)),
        n=len(right),
        unit="share",
        better="higher",
        values=right,
        why="" if known == len(right) else why,
    )


def _worst(before: DomainAnswers, after: DomainAnswers, targets: Collection[str]) -> Score:
    """alignment_drift: the largest change, up or down, of a domain that the request did not mean to change."""
    names = [name for name in before.scores if name not in targets]
    if not names:
        return Score(
            "alignment_drift",
            "alignment",
            "",
            "after",
            None,
            None,
            None,
            0,
            "share",
            "lower",
            status="not measured",
            why="every domain is a target",
        )
    level = 1 - 0.05 / len(names)  # the worst of several looks worse than it is
    ends = {name: change(before.scores[name], after.scores[name], level) for name in names}
    worst = max(names, key=lambda name: abs(ends[name][0]))
    mean, low, high = ends[worst]
    moved = "fell" if mean < 0 else "rose" if mean > 0 else "did not move"
    if mean < 0:
        mean, low, high = -mean, -high, -low
    return Score(
        "alignment_drift",
        "alignment",
        "",
        "after",
        mean,
        max(0.0, low),
        min(1.0, high),
        len(before.scores[worst]),
        "share",
        "lower",
        why=f"the largest change of {len(names)} domains outside the request: {worst} {moved}; interval corrected for "
        "their number",
    )


def table(found: Sequence[Drift]) -> list[dict[str, Any]]:
    """The drifts as evidence.json holds them; a domain with one prompt has no interval."""
    return [{**vars(drift), **({"low": None, "high": None} if drift.n < 2 else {})} for drift in found]
