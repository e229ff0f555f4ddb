"""KLoM: how far unlearned models are from retrained ones, example by example."""

from __future__ import annotations

import numpy as np

from expunge.evaluation.scores import NotMeasured

BINS, CUT, MIN_SHARE = 20, 100.0, 1e-5


def klom(unlearned_MN: np.ndarray, retrained_KN: np.ndarray, bins: int = BINS) -> np.ndarray:
    """[N] KL(unlearned || retrained) in nats of each example's margin over models (Georgiev et al. 2024).

    unlearned_MN, retrained_KN: margins (phi) of N examples under M unlearned and K retrained models.
    As in the released code: each example has `bins` equal bins over the range of both, margins are cut at
    +-100, and a bin without a retrained model counts as 1e-5. So it is at most 11.5, it grows with fewer
    models, and only its noise floor gives a figure meaning: use as many models on both sides of the floor.
    """
    if min(len(unlearned_MN), len(retrained_KN)) < 2:
        raise NotMeasured("a distribution over models needs at least two of each")
    ours, theirs = (np.clip(x, -CUT, CUT) for x in (unlearned_MN, retrained_KN))
    found = np.zeros(ours.shape[1])
    for n in range(len(found)):
        edges = np.histogram_bin_edges(np.concatenate([ours[:, n], theirs[:, n]]), bins)
        p, q = (np.histogram(x[:, n], edges)[0] / len(x) for x in (ours, theirs))
        held = p > 0
        found[n] = float((p[held] * np.log(p[held] / np.maximum(q[held], MIN_SHARE))).sum())
    return found


def summary(unlearned_MN: np.ndarray, retrained_KN: np.ndarray, again_KN: np.ndarray) -> tuple[float, float]:
    """(95th percentile over the examples, the same of two independent sets of retrained models: the noise floor)."""
    return (
        float(np.quantile(klom(unlearned_MN, retrained_KN), 0.95)),
        float(np.quantile(klom(again_KN, retrained_KN), 0.95)),
    )
