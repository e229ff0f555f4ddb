"""Cohen's kappa between two judges, or a judge and people, with its interval."""

from __future__ import annotations

import numpy as np

from expunge.intervals import Interval, bca


def kappa(one: np.ndarray, other: np.ndarray) -> Interval:
    """Agreement of two [N] arrays of verdicts (refused or not) beyond chance, with a BCa bootstrap interval.

    (p_o - p_e) / (1 - p_e) (Cohen 1960, doi:10.1177/001316446002000104). Two judges who both call all answers the
    same agree fully, which shows nothing: 1 by convention. Raises ValueError where there is nothing to compare.
    """
    a, b = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if a.shape != b.shape or not len(a):
        raise ValueError("kappa needs two verdicts on each of at least one answer")

    def statistic(rows: np.ndarray) -> np.ndarray:
        x, y = a[rows], b[rows]
        agreed = (x == y).mean(-1)
        p, q = x.mean(-1), y.mean(-1)
        chance = p * q + (1 - p) * (1 - q)
        return np.asarray(np.where(chance < 1, (agreed - chance) / np.maximum(1e-12, 1 - chance), 1.0))

    return bca(statistic, len(a))
