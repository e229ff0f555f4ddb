"""Exposure of single examples over many models: KLoM, U-LiRA, the competition's epsilon, coverage, stability.

An audit has one model. With many (a bench of small models, a method under study) a stronger question can be
answered: whether the *distribution* of unlearned models is that of retrained ones, example by example. The input
is confidences phi (`confidences`), one row per model; all else is arithmetic. Suffixes: M, K models, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from expunge.attacks.population.epsilon import epsilon, forgetting_quality
from expunge.attacks.population.klom import klom
from expunge.attacks.shared.shadow_models import answer_losses, confidence, lira
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.random import permutation
from expunge.evaluation import intervals
from expunge.evaluation.scores import Figure, NotMeasured

__all__ = [
    "confidences",
    "coverage",
    "cross_scores",
    "epsilon",
    "forgetting_quality",
    "klom",
    "noise_floor",
    "stability",
    "u_lira",
    "when_exposed",
]


def confidences(make: Callable[[int], Model], models: int, examples: Sequence[Example]) -> np.ndarray:
    """[M, N] phi = log(p / (1 - p)) of each example under models 0 ... M - 1, made one after the other.

    make: returns model m (the caller sets its seed); only the confidences are kept.
    """
    return np.stack([confidence(answer_losses(make(m), examples)) for m in range(models)])


def noise_floor(unlearned_MN: np.ndarray, retrained_KN: np.ndarray, again_KN: np.ndarray) -> tuple[Figure, Figure]:
    """(KLoM's 95th percentile, that of a second, independent set of retrained models: the noise floor).

    Each with the BCa interval over the examples. Above the floor, the unlearned models can be told from
    retrained ones; at the floor, this number of models does not show a difference.
    """
    found = []
    for models_MN, why in ((unlearned_MN, "unlearned against retrained"), (again_KN, "retrained against retrained")):
        value = klom(models_MN, retrained_KN)
        ends = intervals.bca(lambda rows, v=value: np.quantile(v[rows], 0.95, axis=-1), len(value))
        found.append(
            Figure(*ends, n=len(value), values=value, why=f"{why}, {len(models_MN)} and {len(retrained_KN)} models")
        )
    return found[0], found[1]


def u_lira(phi_N: np.ndarray, shadow_MN: np.ndarray, unlearned_MN: np.ndarray, never_MN: np.ndarray) -> np.ndarray:
    """[N] log-likelihood ratio of "learned and unlearned" against "never learned" (Hayes et al. 2024, algorithm 2).

    shadow_MN: confidences of shadow models. unlearned_MN: had the example and unlearned it; never_MN: was
    trained without it; models that still have the example count for neither. The spread is shared by all
    examples below 64 shadows, as in LiRA.
    """
    if (unlearned_MN & never_MN).any():
        raise NotMeasured("a shadow model cannot have unlearned an example and never have had it")
    return lira(phi_N, shadow_MN, unlearned_MN, out_MN=never_MN)


def cross_scores(unlearned_MN: np.ndarray, never_KN: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """U-LiRA with each half of the models as the shadows of the other half.

    Returns (scores [M, N] of the unlearned models, [K, N] of those trained without). No model is its own shadow, and
    both sides are treated alike: where the two distributions are the same, the AUC is 0.5.
    """
    if min(len(unlearned_MN), len(never_KN)) < 4:
        raise NotMeasured("each half of the models needs two shadows from the other half: four models of each")
    scores = np.zeros_like(unlearned_MN, dtype=float), np.zeros_like(never_KN, dtype=float)
    sides = (unlearned_MN, never_KN)
    second = [
        np.isin(np.arange(len(x)), permutation(len(x), seed, "crossed", i)[: len(x) // 2]) for i, x in enumerate(sides)
    ]
    for chosen in (second, [~half for half in second]):
        shadow_MN = np.concatenate([x[~half] for x, half in zip(sides, chosen, strict=True)])
        had_MN = np.zeros(shadow_MN.shape, dtype=bool)
        had_MN[: (~chosen[0]).sum()] = True
        for x, half, found in zip(sides, chosen, scores, strict=True):
            for m in np.flatnonzero(half):
                found[m] = u_lira(x[m], shadow_MN, had_MN, ~had_MN)
    return scores


def coverage(hits_SAN: np.ndarray) -> dict[str, float]:
    """Shares of N members that attacks find; hits_SAN: [seeds, attacks, N] bool, at one false-positive rate each.

    one: by a single attack in a single seed, on average; any_attack: by at least one of the attacks, in
    a single seed; any: by any attack in any seed; all: by every attack in every seed. The gap between
    one and any is what a single run of a single attack misses.
    """
    hits = np.asarray(hits_SAN, dtype=bool)
    return {
        "one": float(hits.mean()),
        "any_attack": float(hits.any(axis=1).mean()),
        "any": float(hits.any(axis=(0, 1)).mean()),
        "all": float(hits.all(axis=(0, 1)).mean()),
    }


def stability(hits_SN: np.ndarray) -> float:
    """Mean Jaccard similarity of the sets of members that one attack finds, over all pairs of S seeds.

    1: always the same members; two random sets of a share q each have q / (2 - q). Two empty sets count as 1.
    """
    hits = np.asarray(hits_SN, dtype=bool)
    if len(hits) < 2:
        raise NotMeasured("stability needs at least two seeds")
    pairs = [(a, b) for i, a in enumerate(hits) for b in hits[i + 1 :]]
    return float(np.mean([(a & b).sum() / (a | b).sum() if (a | b).any() else 1.0 for a, b in pairs]))


def when_exposed(members_EN: np.ndarray, others_EN: np.ndarray, *, fpr: float = 0.05) -> np.ndarray:
    """[N] check of a training run from which each member is found until the end; E where it never is.

    members_EN, others_EN: confidences at E checks of the training (say, one per epoch), of members and of examples
    that were never seen. Found: above all but a share `fpr` of the others at the same check. A share of about
    `fpr` is found by chance at the last check: compare the counts with it.
    """
    if not 0 < fpr < 1 or fpr * others_EN.shape[1] < 1:
        raise NotMeasured(f"a false-positive rate of {fpr:g} needs {round(1 / max(fpr, 1e-9))} unseen examples")
    hits_EN = members_EN > np.quantile(others_EN, 1 - fpr, axis=1, keepdims=True)
    stays_EN = np.logical_and.accumulate(hits_EN[::-1])[::-1]
    return np.where(stays_EN.any(axis=0), stays_EN.argmax(axis=0), len(hits_EN))
