"""Outliers: the rows of a class that an out-of-distribution score finds far from the other rows of it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt

from expunge.core import registry
from expunge.core.card import DetectorCard
from expunge.core.errors import BadInput
from expunge.evaluation.detection import Detector, Sample, Suspicion
from expunge.evaluation.ood import Rows, scorer
from expunge.evaluation.scores import NotMeasured

CARD = DetectorCard(
    "Outliers of a class",
    paper="arXiv:2204.06507",
    equation="5, among rows of the same label",
    capabilities=(),
    means="Rows that lie apart from the others under their label by any score of `expunge list ood`. Poison that makes "
    "up most of its class is what the others are measured by. Of a model without classes all rows are one.",
    fidelity="variant",
    leaves_out="rows that are known to be clean: each half of a class is scored by the other",
)
FIELD = "detector.outliers.score"
NEIGHBOURS = 50
"""Of a score by neighbours; of small classes half of the other rows, so that one stray row is nobody's measure."""
SCALE = 1.4826
"""The standard deviation of a normal distribution, in median absolute deviations."""


def outliers(*, score: str = "knn", deviations: Annotated[float, Gt(0)] = 3.5) -> Detector:
    """Score each row by an out-of-distribution score that is fitted on the other half of its class.

    score: its name. deviations: a row is a suspect where its score lies so many deviations above its class's median;
    the deviation is 1.4826 times the median absolute one. The score is given in these deviations.
    """
    plugin = registry.load("ood", score, FIELD)

    def detect(sample: Sample) -> Suspicion:
        rows = sample.rows
        if rows is None and set(plugin.card.reads) != {"features"}:
            fix = "choose a score of features, as knn"
            raise BadInput.of(FIELD, score, "reads more than features, and the model has no classes", fix)
        rows = rows or Rows(np.zeros((len(sample.labels_N), 1)), sample.features_ND, sample.labels_N)
        score_N, half_N = np.zeros(len(sample.labels_N)), _halves(sample)
        for label in np.unique(sample.labels_N):
            own_N = sample.labels_N == label
            for half in (0, 1):
                mine, others = (np.flatnonzero(own_N & (half_N == part)) for part in (half, 1 - half))
                if len(mine) and len(others):
                    few = {"k": max(1, min(NEIGHBOURS, len(others) // 2))} if "k" in plugin.options() else {}
                    score_N[mine] = _measure(score, few, rows.take(others), rows.take(mine))
            middle = np.median(score_N[own_N])
            spread = SCALE * float(np.median(np.abs(score_N[own_N] - middle)))
            score_N[own_N] = (score_N[own_N] - middle) / max(spread, 1e-12)
        return Suspicion(score_N, score_N > deviations, {})

    return detect


def _measure(score: str, options: dict[str, int], known: Rows, rows: Rows) -> np.ndarray:
    """[N] the score's values. Raises BadInput where it reads what these rows have not, as gradients."""
    try:
        return np.asarray(scorer(score, options, where=FIELD)(known, rows))
    except NotMeasured as why:
        fix = "choose a score of logits or features"
        raise BadInput.of(FIELD, score, f"cannot be measured here ({why})", fix) from None


def _halves(sample: Sample) -> np.ndarray:
    """[N] 0 or 1, drawn by seed."""
    return np.random.default_rng(sample.derive("halves")).permutation(len(sample.labels_N)) % 2
