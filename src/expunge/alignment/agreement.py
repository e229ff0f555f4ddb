"""Cohen's kappa between two judges, or a judge and people, with its interval."""

from __future__ import annotations

import numpy as np

from expunge.evaluation.intervals import Interval, bca
from expunge.evaluation.scores import NotMeasured


def kappa(one: np.ndarray, other: np.ndarray) -> Interval:
    """Agreement of two [N] arrays of verdicts (refused or not) beyond chance, with a BCa bootstrap interval.

    (p_o - p_e) / (1 - p_e) (Cohen 1960, doi:10.1177/001316446002000104). Raises NotMeasured where it is undefined: with
    fewer than two answers, and where both judges give every answer the same verdict, so that chance alone would agree
    as well (a resample of which that is true counts as 1).
    """
    a, b = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} verdicts cannot be compared with {len(b)}")
    if len(a) < 2:
        raise NotMeasured("kappa needs at least two answers")
    if a.all() == b.all() and a.any() == b.any() and a.all() == a.any():
        raise NotMeasured("both judges give every answer the same verdict, so that chance alone would agree as well")

    def statistic(rows: np.ndarray) -> np.ndarray:
        x, y = a[rows], b[rows]
        agreed = (x == y).mean(-1)
        p, q = x.mean(-1), y.mean(-1)
        chance = p * q + (1 - p) * (1 - q)
        return np.asarray(np.where(chance < 1, (agreed - chance) / np.maximum(1e-12, 1 - chance), 1.0))

    return bca(statistic, len(a))
