"""The epsilon of the NeurIPS 2023 unlearning competition, and its forgetting quality.

As in the code that the organisers released with Triantafillou et al. 2024 (arXiv:2406.09073); the competition
used 512 models per side. Suffixes: M, K models, N examples.
"""

from __future__ import annotations

import numpy as np

from expunge.evaluation.scores import NotMeasured

DELTA, CAP, PEAKY, REACH = 1e-5, 50.0, 0.01, 2.0
BUCKET = 0.5
"""Width of a bucket of epsilon."""


def epsilon(unlearned_MN: np.ndarray, retrained_KN: np.ndarray, *, delta: float = DELTA) -> np.ndarray:
    """[N] the epsilon at which each example's unlearned and retrained models can be told apart; 0 to 50.

    Two families of attacks on the confidence phi. One threshold: above it is the side with the larger median. Two
    thresholds: between them is the narrower side (they lie within 2 of its ends). The strongest attack counts: the
    larger of log((1 - delta - FPR) / FNR) and log((1 - delta - FNR) / FPR). An attack with one rate at 0 does not
    count, for lack of models; where both are 0, or one side is a hundred times as narrow as the other, epsilon is 50.
    So with M models per side a value below 50 is at most log(M - 1). It grows with the number of attacks, also by
    chance: compare it with that of two sets of retrained models.
    """
    if min(len(unlearned_MN), len(retrained_KN)) < 2:
        raise NotMeasured("a distribution over models needs at least two of each")
    pairs = zip(unlearned_MN.T.astype(float), retrained_KN.T.astype(float), strict=True)
    return np.array([_of_one(ours, theirs, delta) for ours, theirs in pairs])


def _of_one(ours: np.ndarray, theirs: np.ndarray, delta: float) -> float:
    """Epsilon of one example's [M] and [K] confidences."""
    narrow, wide = sorted((ours, theirs), key=np.ptp)
    if np.ptp(narrow) < PEAKY * np.ptp(wide):
        return CAP
    low, high = sorted((ours, theirs), key=np.median)
    both = np.sort(np.concatenate([ours, theirs]))
    cuts = np.concatenate([both[:1] - 1e-9, (both[1:] + both[:-1]) / 2, both[-1:] + 1e-9])  # one between any two values

    def below(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.searchsorted(np.sort(x), cuts) / len(x))

    left, right = np.triu_indices(len(cuts), 1)
    near = np.abs(cuts[right] - narrow.max()) <= REACH
    near &= np.abs(cuts[right] - cuts[left] - np.ptp(narrow)) <= REACH
    left, right = left[near], right[near]
    inside = [below(x)[right] - below(x)[left] for x in (narrow, wide)]
    return max(_strongest(1 - below(high), 1 - below(low), delta), _strongest(inside[0], inside[1], delta))


def _strongest(tpr: np.ndarray, fpr: np.ndarray, delta: float) -> float:
    """The largest epsilon over attacks with these rates; at least 0."""
    fnr = np.round(1 - tpr, 12)
    fpr = np.round(fpr, 12)
    if ((fnr == 0) & (fpr == 0)).any():
        return CAP
    counts = (fnr > 0) & (fpr > 0)
    if not counts.any():
        return 0.0
    fnr, fpr = fnr[counts], fpr[counts]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [np.log(1 - delta - fpr) - np.log(fnr), np.log(1 - delta - fnr) - np.log(fpr)]
    return float(np.clip(np.nanmax([*found, np.zeros_like(fnr)]), 0.0, CAP))


def forgetting_quality(epsilon_N: np.ndarray, models: int = 512) -> np.ndarray:
    """[N] points in 0-1 of each example; the competition's forgetting quality is their mean.

    1 for an epsilon below 0.5, half as much for each further 0.5; none from log(models - 1), rounded up: with
    `models` per side no larger epsilon can be measured.
    """
    bucket = np.floor(np.asarray(epsilon_N, dtype=float) / BUCKET)
    most = np.ceil(np.log(max(2, models - 1))) / BUCKET
    return np.where(bucket < most, 0.5 ** np.minimum(bucket, 200), 0.0)
