"""Exposure of single examples over many models: KLoM, U-LiRA, the competition's epsilon, coverage, stability.

An audit has one model. Whoever can train many (a bench of small models, a method under study) can ask
for more: is the *distribution* of unlearned models that of retrained ones, an example at a time? What
goes in are confidences phi (`confidences`), one row a model; all else is arithmetic. Suffixes: M, K
models, N examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from expunge.attacks._recovery import answer_probability
from expunge.attacks._shadow import confidence, lira
from expunge.attacks.population.epsilon import epsilon, forgetting_quality
from expunge.attacks.population.klom import klom
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.random import permutation
from expunge.evaluation import intervals
from expunge.evaluation.scores import Figure, NotMeasured

__all__ = [
    "confidences",
    "coverage",
    "crossed",
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

    make: gives model m (its seed is the caller's affair); only the confidences are kept.
    """
    return np.stack([confidence(answer_probability(make(m), examples)) for m in range(models)])


def noise_floor(unlearned_MN: np.ndarray, retrained_KN: np.ndarray, again_KN: np.ndarray) -> tuple[Figure, Figure]:
    """(KLoM's 95th percentile, that of a second, independent set of retrained models: the noise floor).

    Each with the BCa interval over the examples. Above the floor, the unlearned models can be told from
    retrained ones; at the floor, so many models cannot tell.
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
    trained without it; models that kept the example count for neither. The spread is shared by all
    examples below 64 shadows, as in LiRA.
    """
    if (unlearned_MN & never_MN).any():
        raise NotMeasured("a shadow model cannot have unlearned an example and never have had it")
    return lira(phi_N, shadow_MN, unlearned_MN, out_MN=never_MN)


def crossed(unlearned_MN: np.ndarray, never_KN: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(scores [M, N] of the unlearned models, [K, N] of those trained without): U-LiRA, each half shadowed by the other.

    No model is its own shadow, and both sides leave out alike: where the two distributions are one, the AUC is 0.5.
    """
    if min(len(unlearned_MN), len(never_KN)) < 4:
        raise NotMeasured("each half of the models needs two of the other half as shadows: four of each")
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

    one: by a single attack in a single seed, on average; any_attack: by one of the attacks at least, in
    a single seed; any: by any attack in any seed; all: by every attack in every seed. The gap between
    one and any is what a single run of a single attack leaves unseen.
    """
    hits = np.asarray(hits_SAN, dtype=bool)
    return {
        "one": float(hits.mean()),
        "any_attack": float(hits.any(axis=1).mean()),
        "any": float(hits.any(axis=(0, 1)).mean()),
        "all": float(hits.all(axis=(0, 1)).mean()),
    }


def stability(hits_SN: np.ndarray) -> float:
    """Mean Jaccard likeness of the sets of members that one attack finds, over all pairs of S seeds.

    1: always the same members; two random sets of a share q each have q / (2 - q). Two empty sets are alike.
    """
    hits = np.asarray(hits_SN, dtype=bool)
    if len(hits) < 2:
        raise NotMeasured("stability needs two seeds and more")
    pairs = [(a, b) for i, a in enumerate(hits) for b in hits[i + 1 :]]
    return float(np.mean([(a & b).sum() / (a | b).sum() if (a | b).any() else 1.0 for a, b in pairs]))


def when_exposed(members_EN: np.ndarray, others_EN: np.ndarray, *, fpr: float = 0.05) -> np.ndarray:
    """[N] the check of a training from which each member is found and stays so; E where it never is.

    members_EN, others_EN: confidences at E checks on the way (an epoch each, say), of members and of examples
    that were never seen. Found: above all but a share `fpr` of the others at the same check. A share of about
    `fpr` is found by chance at the last check: hold the counts against it.
    """
    if not 0 < fpr < 1 or fpr * others_EN.shape[1] < 1:
        raise NotMeasured(f"a false-positive rate of {fpr:g} needs {round(1 / max(fpr, 1e-9))} unseen examples")
    hits_EN = members_EN > np.quantile(others_EN, 1 - fpr, axis=1, keepdims=True)
    stays_EN = np.logical_and.accumulate(hits_EN[::-1])[::-1]
    return np.where(stays_EN.any(axis=0), stays_EN.argmax(axis=0), len(hits_EN))
