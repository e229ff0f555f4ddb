"""Sets of classes that hold the true one as often as was asked for, by the rows of the holdout."""

from __future__ import annotations

import math

import numpy as np

from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured


def sets_of(split: Readout, holdout: Readout, miss: float) -> np.ndarray:
    """[N, C] bool: the classes in each row's set, which misses the true one of unseen rows with probability `miss`.

    Split conformal prediction by 1 - p: a class is in where 1 - p is at most the ceil((n + 1)(1 - miss))-th smallest of
    the n holdout rows' 1 - p of their true class. Raises NotMeasured where n is too small for it, and where the model
    is so wrong on the holdout (rows that bear wrong labels, say) that every set would hold every class.
    """
    assert split.logp_NC is not None and holdout.logp_NC is not None and holdout.labels_N is not None
    count = len(holdout.labels_N)
    place = math.ceil((count + 1) * (1 - miss))
    if place > count:
        raise NotMeasured(f"{count} holdout rows are too few for sets that miss {miss:g}")
    strange_M = 1 - np.exp(holdout.logp_NC[np.arange(count), holdout.labels_N])
    bar = np.sort(strange_M)[place - 1]
    inside_NC = np.asarray(1 - np.exp(split.logp_NC) <= bar)
    if inside_NC.all():
        raise NotMeasured("sets that miss so few of the holdout's rows hold every class: the model is wrong on these")
    return inside_NC
