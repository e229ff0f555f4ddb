"""From confidences of many models to scores: each figure of the unlearned models, and the same of retrained ones.

Models are "after" (the unlearned models), "gold" (a second set of retrained ones: the noise floor) and "before",
each held against the reference, the first set of retrained models. Suffixes: M, K models, N examples, S seeds, A
attacks, E checks of a training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from expunge.attacks.population.statistics import (
    coverage,
    crossed,
    epsilon,
    forgetting_quality,
    klom,
    stability,
    when_exposed,
)
from expunge.evaluation import intervals
from expunge.evaluation.scores import Figure, Label, NotMeasured, Score

ROLES = ("before", "after", "gold")
FPR = 0.05
"""At which an attack is said to have found an example."""
SEEDS = 16
"""Models whose attacks are compared, at most: all pairs of them are."""
DRAWS = 1000
SIDE = "privacy"

Phi = Mapping[str, np.ndarray]
"""Split -> [M, N] confidences."""


@dataclass
class Measured:
    """Scores, what there is to say of them, and split -> model -> sorted KLoM of the examples, for the picture."""

    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    klom: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def measured(phi: Mapping[str, Phi], seed: int = 0) -> Measured:
    """All figures of confidences; phi["after"]["forget"], and "reference" besides the models.

    All sides take the same number of models, since each of these figures hangs on it.
    """
    found = Measured()
    sides = [role for role in ROLES if role in phi]
    counts = {role: len(next(iter(phi[role].values()))) for role in (*sides, "reference")}
    count = min(counts[role] for role in sides)
    if max(counts[role] for role in sides) > count:
        found.notes.append(
            f"The first {count} models of each set are compared ({', '.join(f'{role} has {counts[role]}' for role in sides)}): "
            "the figures hang on the number of models."
        )
    for split in sorted(phi["reference"], key=lambda name: name != "forget"):
        reference_KN = phi["reference"][split]
        for role in sides:
            ours_MN = phi[role][split][:count]
            said = f"{count} models against {len(reference_KN)} retrained ones"
            value = klom(ours_MN, reference_KN)
            found.klom.setdefault(split, {})[role] = np.sort(value).round(4).tolist()
            found.scores.append(
                Score.of_figure(
                    quantile(value, 0.95, f"95th percentile over the examples; {said}"),
                    **_label("klom", split, role, "nats"),
                )
            )
            if split == "forget":
                found.scores += _told_apart(ours_MN, reference_KN, role, said, seed)
    return found


def _told_apart(ours_MN: np.ndarray, reference_KN: np.ndarray, role: str, said: str, seed: int) -> list[Score]:
    """Epsilon, forgetting quality and U-LiRA on the forget set."""
    eps = epsilon(ours_MN, reference_KN)
    points = forgetting_quality(eps, min(len(ours_MN), len(reference_KN)))
    median = quantile(eps, 0.5, f"median over the examples; {said}")
    quality = Figure(*intervals.mean(points, 0.0, 1.0), n=len(points), values=points, why=said)
    made = [
        Score.of_figure(median, **_label("epsilon", "forget", role, "nats")),
        Score.of_figure(quality, **_label("forgetting_quality", "forget", role, "share")),
    ]
    ours, theirs = crossed(ours_MN, reference_KN, seed=seed)
    each = intervals.placements(ours.ravel(), theirs.ravel())[0].reshape(ours.shape).mean(axis=0)
    found = intervals.auc_by_example(ours, theirs)
    auc = Figure(*found, n=len(each), values=each, why=said)
    made.append(Score.of_figure(auc, **_label("u_lira_auc", "forget", role, "auc")))
    for suffix, rate in (("tpr_1", 0.01), ("tpr_01", 0.001)):
        try:
            figure = tpr_by_example(ours, theirs, rate)
            made.append(Score.of_figure(figure, **_label(f"u_lira_{suffix}", "forget", role, "share")))
        except NotMeasured as reason:
            made.append(Score.not_measured(str(reason), **_label(f"u_lira_{suffix}", "forget", role, "share")))
    return made


def quantile(values_N: np.ndarray, q: float, why: str) -> Figure:
    """A quantile over the examples with its BCa interval."""
    ends = intervals.bca(lambda rows: np.quantile(values_N[rows], q, axis=-1), len(values_N))
    return Figure(*ends, n=len(values_N), values=values_N, why=why)


def tpr_by_example(members_MN: np.ndarray, others_KN: np.ndarray, fpr: float) -> Figure:
    """The share of members' scores above all but a share `fpr` of the others'; examples are drawn anew, threshold and all."""
    allowed = int(fpr * others_KN.size + 1e-9)
    if allowed < 1:
        raise NotMeasured(
            f"a false-positive rate of {fpr:.1%} needs {round(1 / fpr):,} scores of retrained models (models "
            f"times examples), not {others_KN.size}"
        )

    def rate(rows: np.ndarray) -> float:
        others = np.partition(others_KN[:, rows].ravel(), -allowed - 1)
        return float((members_MN[:, rows] > others[-allowed - 1]).mean())

    n = members_MN.shape[1]
    draw = np.random.default_rng(0)
    value = rate(np.arange(n))
    drawn = [rate(draw.integers(0, n, size=(n,))) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    if low == high:
        _, low, high = intervals.share(value * n, n)
    why = f"{allowed} of {others_KN.size} scores of retrained models lie above the threshold"
    return Figure(value, min(value, float(low)), max(value, float(high)), n=n, why=why)


def coverages(scores: Mapping[str, Mapping[str, Sequence[Mapping[str, np.ndarray]]]]) -> list[Score]:
    """Whom attacks find, over attacks and models; scores["after"]["forget"][model][attack] are [N].

    An attack finds an example whose score lies above all but 5 % of the holdout's under the same model.
    """
    names = {"coverage_one": "one", "coverage": "any"}
    made: list[Score] = []
    sides = [role for role in ROLES if role in scores]
    seeds = min(SEEDS, *(len(scores[role]["forget"]) for role in sides))
    for role in sides:
        if "holdout" not in scores[role]:
            made += [
                Score.not_measured("no holdout was given", **_label(name, "forget", role, "share"))
                for name in (*names, "stability")
            ]
            continue
        others = scores[role]["holdout"][:seeds]
        count = len(next(iter(others[0].values())))
        if FPR * count < 1:
            why = f"a false-positive rate of {FPR:.0%} needs {round(1 / FPR)} unseen examples, not {count}"
            made += [Score.not_measured(why, **_label(name, "forget", role, "share")) for name in (*names, "stability")]
            continue
        hits_SAN = np.stack(
            [
                np.stack(
                    [np.ma.filled(x[a], -np.inf) > np.quantile(np.ma.filled(y[a], -np.inf), 1 - FPR) for a in sorted(x)]
                )
                for x, y in zip(scores[role]["forget"][:seeds], others, strict=True)
            ]
        )
        shares = coverage(hits_SAN)
        attacks = ", ".join(sorted(others[0]))
        one_N, any_N = hits_SAN.mean(axis=(0, 1)), hits_SAN.any(axis=(0, 1)).astype(float)
        for name, key in names.items():
            values = one_N if key == "one" else any_N
            ends = (
                intervals.mean(values, 0.0, 1.0) if key == "one" else intervals.share(float(values.sum()), len(values))
            )
            why = (
                "by one attack on one model, on average"
                if key == "one"
                else f"by any of {attacks}, on any of {seeds} models"
            )
            figure = Figure(shares[key], ends.low, ends.high, len(values), values, why)
            made.append(Score.of_figure(figure, **_label(name, "forget", role, "share")))
        made.append(Score.of_figure(_stable(hits_SAN), **_label("stability", "forget", role, "share")))
    return made


def _stable(hits_SAN: np.ndarray) -> Figure:
    """Mean likeness of the sets that one attack finds on two models; the interval draws examples anew."""

    def value(rows: np.ndarray) -> float:
        return float(np.mean([stability(hits_SAN[:, a][:, rows]) for a in range(hits_SAN.shape[1])]))

    n = hits_SAN.shape[2]
    draw = np.random.default_rng(0)
    found = value(np.arange(n))
    low, high = np.quantile([value(draw.integers(0, n, size=(n,))) for _ in range(200)], [0.025, 0.975])
    return Figure(
        found,
        min(found, float(low)),
        max(found, float(high)),
        n=n,
        why=f"Jaccard likeness over all pairs of {len(hits_SAN)} models, mean over {hits_SAN.shape[1]} attacks",
    )


def course(members_EN: np.ndarray, others_EN: np.ndarray) -> tuple[Score, list[dict[str, float]], np.ndarray | None]:
    """(share of the forget set that is found at the end of a training, the share by check, [N] first check or E)."""
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
    """What so few models can tell."""
    most = math.log(max(2, models - 1))
    return (
        f"With {models} models a side, what is below perfect separation has an epsilon of at most {most:.1f}, and all these figures are "
        "far from 0 by chance: only the distance to the retrained models' own says anything."
    )


def _label(name: str, split: str, role: str, unit: str) -> Label:
    return {"name": f"{SIDE}_{name}", "side": SIDE, "split": split, "role": role, "unit": unit, "better": "gold"}
