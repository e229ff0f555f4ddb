"""The rule of unknown pictures, which metrics of generated pictures share."""

from __future__ import annotations

import numpy as np

from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured, must_go

MOST_UNKNOWN = 0.05
"""Share of pictures that may be unknown; where more are, nothing is measured."""


def count_unknown(split: Readout, votes_N: np.ndarray) -> np.ndarray:
    """[N] votes in which an unknown picture counts against the model: as showing what must go, as not showing what must
    stay; of gold the other way round, so that it lends no margin. Raises NotMeasured where too many are unknown."""
    unknown_N = ~np.isfinite(votes_N)
    if (count := int(unknown_N.sum())) > MOST_UNKNOWN * len(votes_N):
        why = "unjudged: they are not finite or of one colour, or the judges cannot tell real pictures"
        raise NotMeasured(f"{count} of {len(votes_N)} pictures are {why}")
    gold = split.role not in ("before", "after")
    return np.where(unknown_N, float(must_go(split.split) != gold), votes_N)
