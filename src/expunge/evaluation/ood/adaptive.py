"""A score that follows a slow drift of what is in distribution."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows
from expunge.evaluation.ood.knn import knn

CARD = OodCard(
    "Nearest neighbours on a drifting stream",
    paper="arXiv:2309.11705",
    equation="the setting: rows in distribution drift, and the detector adapts as it reads them",
    reads=("features",),
    fits=("features",),
    means="For rows that come one after another and change slowly, as pictures of an ageing camera. Rows must be given "
    "in their order. The paper learns how to adapt a whole network; here the mean of what was accepted "
    "moves. Far rows that come slowly nearer are followed too.",
)
ACCEPTED = 0.95
"""Share of the known rows below the bar: what scores higher moves nothing."""


def adaptive(
    *,
    k: Annotated[int, Ge(1)] = 50,
    block: Annotated[int, Ge(1)] = 20,
    memory: Annotated[float, Gt(0), Le(1)] = 0.5,
) -> OodScore:
    """The distance to the k-th neighbour of features from which the drift so far was taken.

    Rows are read in blocks of `block`; the drift is a running mean of how far the accepted rows of a block lie from the
    known ones' mean, in which the last block has the weight `memory`. A row is accepted where it scores below the .95
    quantile of the known rows, each half of them scored by the other.
    """
    measure = knn(k=k)

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert known.features_ND is not None and rows.features_ND is not None
        halves = [known.take(slice(first, None, 2)) for first in (0, 1)]
        usual = np.concatenate([measure(halves[1], halves[0]), measure(halves[0], halves[1])])
        bar, mean_D = np.quantile(usual, ACCEPTED), known.features_ND.mean(0)
        drift_D, found = np.zeros_like(mean_D), []
        for first in range(0, len(rows.features_ND), block):
            own_ND = rows.features_ND[first : first + block]
            values = measure(known, replace(rows, features_ND=own_ND - drift_D))
            found.append(values)
            accepted_ND = own_ND[values < bar]
            # Half a block of accepted rows or more: the mean of a few is noise, not drift.
            if 2 * len(accepted_ND) >= len(own_ND):
                drift_D = (1 - memory) * drift_D + memory * (accepted_ND.mean(0) - mean_D)
        return np.concatenate(found)

    return score
