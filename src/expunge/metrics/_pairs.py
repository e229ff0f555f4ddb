"""Scores of pictures and texts against one another in the common space of a pair of encoders."""

from __future__ import annotations

import numpy as np

from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured


def vectors(readout: Readout, channel: str) -> np.ndarray:
    """[N, D] unit vectors of a channel. Raises NotMeasured where a value is not finite."""
    found_ND = readout.own[channel]
    if not np.isfinite(found_ND).all():
        raise NotMeasured("an embedding is not finite: the model has diverged")
    return found_ND.astype(np.float64)


def best(query_ND: np.ndarray, names: list[str], candidates_MD: np.ndarray, of: list[str]) -> np.ndarray:
    """[N] whether the candidate that a query is nearest to has the query's own name; ties go to the first."""
    own_N = np.array(of)[(query_ND @ candidates_MD.T).argmax(1)]
    return np.asarray(own_N == np.array(names))
