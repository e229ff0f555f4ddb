"""AUROC and FPR95 of an out-of-distribution score, with intervals over the rows."""

from __future__ import annotations

import numpy as np

from expunge.evaluation import intervals
from expunge.evaluation.intervals import Interval
from expunge.evaluation.scores import NotMeasured

ACCEPTED = 0.95
FPR95_MEANS = "FPR95 = share of OOD accepted when 95 % of ID is accepted"
"""The convention, which is printed beside each figure: some packages take OOD for the positives."""


def auroc(inside_N: np.ndarray, outside_M: np.ndarray) -> Interval:
    """The chance that an out-of-distribution row scores higher than one in distribution; a tie is half a win."""
    return intervals.auc(outside_M, inside_N)


def fpr95(inside_N: np.ndarray, outside_M: np.ndarray) -> Interval:
    """The share of the rows outside whose score is not above the lowest threshold that accepts 95 % of those inside.

    The interval is a BCa bootstrap over both sides, Wilson's where no draw differs. Raises NotMeasured below 20 rows
    inside, which have no such quantile.
    """
    inside, outside = np.asarray(inside_N, dtype=float), np.asarray(outside_M, dtype=float)
    if len(inside) < 20 or not len(outside):
        raise NotMeasured(f"a threshold that accepts 95 % needs 20 rows in distribution, not {len(inside)}")

    def share_accepted(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        last = int(np.ceil(ACCEPTED * first.shape[-1] - 1e-9)) - 1
        limit = np.partition(inside[first], last, axis=-1)[..., last, None]
        return np.asarray((outside[second] <= limit).mean(axis=-1))

    found = intervals.bca(share_accepted, len(inside), len(outside))
    return intervals.share(found.value * len(outside), len(outside)) if found.low == found.high else found
