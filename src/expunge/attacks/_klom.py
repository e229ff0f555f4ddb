"""KLoM: how far unlearned models are from retrained ones, an example at a time."""

from __future__ import annotations

import numpy as np

from expunge.evidence import NotMeasured

BINS, CUT = 20, 10.0


def klom(unlearned_MN: np.ndarray, retrained_KN: np.ndarray, bins: int = BINS) -> np.ndarray:
    """[N] KL(unlearned || retrained) in nats of each example's margin over models (Georgiev et al. 2024).

    unlearned_MN, retrained_KN: margins (phi) of N examples under M unlearned and K retrained models.
    Each example has `bins` equal bins over the range of both, with half a count in each bin so that
    no bin is empty; margins are cut at +-10 around the retrained models' mean.
    """
    if min(len(unlearned_MN), len(retrained_KN)) < 2:
        raise NotMeasured("a distribution over models needs at least two of each")
    centre = retrained_KN.mean(axis=0)
    ours, theirs = (np.clip(x - centre, -CUT, CUT) for x in (unlearned_MN, retrained_KN))
    found = np.zeros(ours.shape[1])
    for n in range(len(found)):
        low, high = (end(np.concatenate([ours[:, n], theirs[:, n]])) for end in (np.min, np.max))
        edges = np.linspace(low, high + 1e-9, bins + 1)
        p, q = (np.histogram(x[:, n], edges)[0] + 0.5 for x in (ours, theirs))
        p, q = p / p.sum(), q / q.sum()
        found[n] = float((p * np.log(p / q)).sum())
    return found


def summary(unlearned_MN: np.ndarray, retrained_KN: np.ndarray, again_KN: np.ndarray) -> tuple[float, float]:
    """(95th percentile over the examples, the same of two independent sets of retrained models: the noise floor)."""
    return (float(np.quantile(klom(unlearned_MN, retrained_KN), 0.95)),
            float(np.quantile(klom(again_KN, retrained_KN), 0.95)))  # fmt: skip
