"""From confidences of many models to scores: each figure for the unlearned models, and the same for retrained ones.

Models are "after" (the unlearned models), "gold" (a second set of retrained ones: the noise floor) and "before",
each compared with the reference, the first set of retrained models. Suffixes: M, K models, N examples, S seeds, A
attacks, E checks of a training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from expunge.attacks.population.statistics import (
    coverage,
    cross_scores,
    epsilon,
    forgetting_quality,
    klom,
    stability,
    when_exposed,
)
from expunge.evaluation import intervals
from expunge.evaluation.groups import count_groups
from expunge.evaluation.scores import Figure, Label, NotMeasured, Score

ROLES = ("before", "after", "gold")
FPR = 0.05
"""False-positive rate at which an attack counts as having found an example."""
MAX_MODELS = 16
"""Most models whose attacks are compared; all pairs of them are."""
STABILITY_DRAWS = 200
LEAST_FOR_KLOM = 100
"""Models per side below which KLoM is not given: of equal distributions it reads 5.6 nats on average at 10 models, 0.9
at 50 and 0.35 at 100, and of distributions three deviations apart 9.0, 7.2 and 6.6."""
TOO_FEW = "KLoM of fewer than 100 models per side is mostly noise ({})"
SIDE = "privacy"

Phi = Mapping[str, np.ndarray]
"""Split -> [M, N] confidences."""


@dataclass
class PopulationScores:
    """Scores, notes on them, and split -> model -> sorted KLoM of the examples, for the plot."""

    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    klom: dict[str, dict[str, list[float]]] = field(default_factory=dict)


Groups = Mapping[str, np.ndarray | None]
"""Split -> [N] numbers of the examples' groups, by which intervals are clustered; None or no split: examples count."""


def population_scores(phi: Mapping[str, Phi], seed: int = 0, groups: Groups | None = None) -> PopulationScores:
    """All figures from confidences; phi["after"]["forget"], and "reference" as well as the models.

    All sides use the same number of models, since each of these figures depends on it.
    """
    found = PopulationScores()
    sides = [role for role in ROLES if role in phi]
    counts = {role: len(next(iter(phi[role].values()))) for role in (*sides, "reference")}
    count = min(counts[role] for role in sides)
    if max(counts[role] for role in sides) > count:
        listed = ", ".join(f"{role} has {counts[role]}" for role in sides)
        found.notes.append(
            f"The first {count} models of each set are compared ({listed}): the figures depend on the number of models."
        )
    groups = groups or {}
    for split in sorted(phi["reference"], key=lambda name: name != "forget"):
        reference_KN = phi["reference"][split]
        for role in sides:
            ours_MN = phi[role][split][:count]
            said = f"{count} models against {len(reference_KN)} retrained ones"
            if min(len(ours_MN), len(reference_KN)) < LEAST_FOR_KLOM:
                found.scores.append(Score.not_measured(TOO_FEW.format(said), **_label("klom", split, role, "nats")))
            else:
                value = klom(ours_MN, reference_KN)
                found.klom.setdefault(split, {})[role] = np.sort(value).round(4).tolist()
                figure = quantile(value, 0.95, f"95th percentile over the examples; {said}", groups.get(split))
                found.scores.append(Score.of_figure(figure, **_label("klom", split, role, "nats")))
            if split == "forget":
                found.scores += _forget_scores(ours_MN, reference_KN, role, said, seed, groups.get(split))
    return found


def _forget_scores(
    ours_MN: np.ndarray, reference_KN: np.ndarray, role: str, said: str, seed: int, groups: np.ndarray | None
) -> list[Score]:
    """Epsilon, forgetting quality and U-LiRA on the forget set."""
    eps = epsilon(ours_MN, reference_KN)
    points = forgetting_quality(eps, min(len(ours_MN), len(reference_KN)))
    count = count_groups(groups)
    median = quantile(eps, 0.5, f"median over the examples; {said}", groups)
    ends = intervals.mean(points, 0.0, 1.0, groups=groups)
    quality = Figure(*ends, n=len(points), values=points, why=said, groups=count)
    made = [
        Score.of_figure(median, **_label("epsilon", "forget", role, "nats")),
        Score.of_figure(quality, **_label("forgetting_quality", "forget", role, "share")),
    ]
    ours, theirs = cross_scores(ours_MN, reference_KN, seed=seed)
    each = intervals.placements(ours.ravel(), theirs.ravel())[0].reshape(ours.shape).mean(axis=0)
    found = intervals.auc_by_example(ours, theirs, groups=groups)
    auc = Figure(*found, n=len(each), values=each, why=said, groups=count)
    made.append(Score.of_figure(auc, **_label("u_lira_auc", "forget", role, "auc")))
    for suffix, rate in (("tpr_1", 0.01), ("tpr_01", 0.001)):
        try:
            figure = tpr_by_example(ours, theirs, rate, groups)
            made.append(Score.of_figure(figure, **_label(f"u_lira_{suffix}", "forget", role, "share")))
        except NotMeasured as reason:
            made.append(Score.not_measured(str(reason), **_label(f"u_lira_{suffix}", "forget", role, "share")))
    return made


def quantile(values_N: np.ndarray, q: float, why: str, groups: np.ndarray | None = None) -> Figure:
    """A quantile over the examples with its BCa interval; with groups, by a bootstrap of whole groups."""

    def statistic(rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.quantile(values_N[rows], q, axis=-1))

    n = len(values_N)
    ends = intervals.bca(statistic, n) if groups is None else intervals.bootstrap_by_group(statistic, groups)
    return Figure(*ends, n=n, values=values_N, why=why, groups=count_groups(groups))


def tpr_by_example(
    members_MN: np.ndarray, others_KN: np.ndarray, fpr: float, groups: np.ndarray | None = None
) -> Figure:
    """The share of members' scores above all but a share `fpr` of the others'; the bootstrap covers the threshold.

    It draws examples, or whole groups of them.
    """
    allowed = int(fpr * others_KN.size + 1e-9)
    if allowed < 1:
        raise NotMeasured(
            f"a false-positive rate of {fpr:.1%} needs {round(1 / fpr):,} scores of retrained models (models "
            f"times examples), not {others_KN.size}"
        )

    def rate(rows: np.ndarray) -> np.ndarray:
        above = int(fpr * len(others_KN) * len(rows) + 1e-9)
        others = np.partition(others_KN[:, rows].ravel(), -above - 1)
        return np.asarray((members_MN[:, rows] > others[-above - 1]).mean())

    n = members_MN.shape[1]
    ends = intervals.bootstrap_by_group(rate, np.arange(n) if groups is None else groups)
    if ends.low == ends.high:
        ends = intervals.share(ends.value * n, n)
    why = f"{allowed} of {others_KN.size} scores of retrained models lie above the threshold"
    return Figure(*ends, n=n, why=why, groups=count_groups(groups))


def coverages(scores: Mapping[str, Mapping[str, Sequence[Mapping[str, np.ndarray]]]]) -> list[Score]:
    """The examples that attacks find, over attacks and models; scores["after"]["forget"][model][attack] are [N].

    An attack finds an example whose score lies above all but 5 % of the holdout's under the same model.
    """
    sides = [role for role in ROLES if role in scores]
    models = min(MAX_MODELS, *(len(scores[role]["forget"]) for role in sides))
    return [score for role in sides for score in _coverage_of(role, scores[role], models)]


def _coverage_of(role: str, splits: Mapping[str, Sequence[Mapping[str, np.ndarray]]], models: int) -> list[Score]:
    """Coverage by one attack, by any attack, and stability, for the models of one role."""
    others = splits.get("holdout", [])[:models]
    count = len(next(iter(others[0].values()))) if others else 0
    if FPR * count < 1:
        few = f"a false-positive rate of {FPR:.0%} needs {round(1 / FPR)} unseen examples, not {count}"
        why = few if others else "no holdout was given"
        return [
            Score.not_measured(why, **_label(name, "forget", role, "share"))
            for name in ("coverage_one", "coverage", "stability")
        ]
    hits_SAN = np.stack([_hits(ours, theirs) for ours, theirs in zip(splits["forget"][:models], others, strict=True)])
    one_N, any_N = hits_SAN.mean(axis=(0, 1)), hits_SAN.any(axis=(0, 1)).astype(float)
    shares, n = coverage(hits_SAN), len(one_N)
    one, some = intervals.mean(one_N, 0.0, 1.0), intervals.share(float(any_N.sum()), n)
    by_one = "by one attack on one model, on average"
    by_any = f"by any of {', '.join(sorted(others[0]))}, on any of {models} models"
    figures = {
        "coverage_one": Figure(shares["one"], one.low, one.high, n, one_N, by_one),
        "coverage": Figure(shares["any"], some.low, some.high, n, any_N, by_any),
        "stability": _stability_figure(hits_SAN),
    }
    return [Score.of_figure(figure, **_label(name, "forget", role, "share")) for name, figure in figures.items()]


def _hits(members: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> np.ndarray:
    """[A, N] bool: the members that each attack finds under one model; masked scores are never found."""
    thresholds = {name: np.quantile(np.ma.filled(values, -np.inf), 1 - FPR) for name, values in others.items()}
    return np.stack([np.ma.filled(members[name], -np.inf) > thresholds[name] for name in sorted(members)])


def _stability_figure(hits_SAN: np.ndarray) -> Figure:
    """Mean similarity of the sets that one attack finds on two models; the interval is a bootstrap over examples."""

    def value(rows: np.ndarray) -> float:
        return float(np.mean([stability(hits_SAN[:, a][:, rows]) for a in range(hits_SAN.shape[1])]))

    n = hits_SAN.shape[2]
    draw = np.random.default_rng(0)
    found = value(np.arange(n))
    low, high = np.quantile([value(draw.integers(0, n, size=(n,))) for _ in range(STABILITY_DRAWS)], [0.025, 0.975])
    return Figure(
        found,
        min(found, float(low)),
        max(found, float(high)),
        n=n,
        why=f"Jaccard similarity over all pairs of {len(hits_SAN)} models, mean over {hits_SAN.shape[1]} attacks",
    )


def course(members_EN: np.ndarray, others_EN: np.ndarray) -> tuple[Score, list[dict[str, float]], np.ndarray | None]:
    """(share of the forget set found at the end of training, the share by check, [N] first check).

    Checks count from 1; E + 1 stands for an example that is never found.
    """
    checks = len(members_EN)
    try:
        first_N = when_exposed(members_EN, others_EN, fpr=FPR)
    except NotMeasured as reason:
        return Score.not_measured(str(reason), **_label("course", "forget", "after", "share")), [], None
    hits = float((first_N < checks).sum())
    why = f"found at the last of {checks} checks, {FPR:.0%} by chance"
    figure = Figure(*intervals.share(hits, len(first_N)), n=len(first_N), why=why)
    score = Score.of_figure(figure, **_label("course", "forget", "after", "share"))
    return score, [{"x": check + 1, "value": float((first_N <= check).mean())} for check in range(checks)], first_N + 1


def chance(models: int) -> str:
    """A note on the resolution of so few models."""
    most = math.log(max(2, models - 1))
    return (
        f"With {models} models per side, any epsilon short of perfect separation is at most {most:.1f}, and all these "
        "figures are far from 0 by chance: only their distance to the retrained models' own figures is informative."
    )


def _label(name: str, split: str, role: str, unit: str) -> Label:
    return {"name": f"{SIDE}_{name}", "side": SIDE, "split": split, "role": role, "unit": unit, "better": "gold"}
