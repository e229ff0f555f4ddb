"""Expected calibration error."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation import intervals
from expunge.evaluation.groups import groups_of
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = MetricCard(
    "Expected calibration error",
    paper="arXiv:1706.04599",
    equation="3",
    side="utility",
    better="lower",
    unit="share",
    capabilities=("labels",),
    needs={"split": {"logits"}},
    splits=("retain", "holdout", "test"),
    means="How far the model's confidence is from its accuracy: compare it with the same figure before the change and "
    "of gold. Few examples make it larger than it is, since bins then miss their confidence by chance.",
)
BINS = 15


def ece() -> Metric:
    """Mean distance of confidence and accuracy over 15 equal bins of the confidence, weighted by their examples.

    The interval is a BCa bootstrap over the examples, or over their groups.
    """

    def figure(split: Readout) -> Figure:
        assert split.logp_NC is not None and split.labels_N is not None
        sure_N = np.exp(split.logp_NC.max(axis=1))
        right_N = (split.logp_NC.argmax(axis=1) == split.labels_N).astype(float)

        def statistic(rows: np.ndarray) -> np.ndarray:
            return ece_from(sure_N[rows], right_N[rows])

        groups = groups_of(split.examples)
        n = len(sure_N)
        found = intervals.bca(statistic, n) if groups is None else intervals.bootstrap_by_group(statistic, groups)
        if found.low == found.high:
            found = intervals.share(found.value * n, n)
        return Figure(*found, n=n, groups=None if groups is None else len(set(groups.tolist())))

    return figure


def ece_from(sure_N: np.ndarray, right_N: np.ndarray) -> np.ndarray:
    """The error of [..., N] confidences in 0-1 and hits (0 or 1); a bin holds its upper end."""
    bin_N = np.clip(np.ceil(sure_N * BINS).astype(int) - 1, 0, BINS - 1)
    lead_N = sure_N - right_N
    gaps = [np.abs(np.where(bin_N == b, lead_N, 0.0).sum(axis=-1)) for b in range(BINS)]
    return np.asarray(sum(gaps) / sure_N.shape[-1])
