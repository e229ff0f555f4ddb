"""Conformal sets by hand, and their promise on rows like those that calibrated them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured
from expunge.metrics.conformal_coverage import conformal_coverage
from expunge.metrics.conformal_size import conformal_size


def readout(p_NC: Any, labels: list[int], split: str = "test") -> Readout:
    p, rows = np.asarray(p_NC, dtype=float), [{"label": label} for label in labels]
    ones = np.ones(len(labels), dtype=int)
    nll = -np.log(p[np.arange(len(p)), labels])
    return Readout(split, "after", rows, nll, ones, logp_NC=np.log(p), labels_N=np.array(labels))


def test_sets_hold_what_is_no_stranger_than_the_bar() -> None:
    """Holdout: 1 - p of the true class .1, .2, .3, .4; sets that miss .4 take the ceil(5 * .6) = third, .3. Then a set
    is what has p >= .7: (.7, .2, .1) has class 0, (.5, .3, .2) none; (.1, .8, .1) class 1."""
    holdout = readout([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], [0, 1, 2, 0], "holdout")
    rows = readout([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], [0, 0, 2])
    assert conformal_coverage(miss=0.4)(rows, holdout).tolist() == [True, False, False]
    assert conformal_size(miss=0.4)(rows, holdout).tolist() == [1, 0, 1]
    assert conformal_size(miss=0.2)(rows, holdout).tolist() == [1, 0, 1], "ceil(5 * .8) = 4: p >= .6"
    with pytest.raises(NotMeasured, match="4 holdout rows are too few for sets that miss"):
        conformal_coverage()(rows, holdout)


def test_unseen_rows_are_covered_as_often_as_promised() -> None:
    """Whatever the model says: distributions that know nothing of the labels, over 200 draws of 99 and 200 rows."""
    draw, found = np.random.default_rng(0), []
    for _ in range(200):
        parts = []
        for count in (99, 200):
            p = draw.dirichlet(np.ones(5), count)
            parts.append(readout(p, draw.integers(0, 5, count).tolist()))
        found.append(conformal_coverage(miss=0.2)(parts[1], parts[0]).mean())
    assert np.mean(found) == pytest.approx(0.8, abs=0.01)


def test_a_holdout_with_wrong_labels_calibrates_nothing() -> None:
    sure = [[0.98, 0.01, 0.01]] * 10
    wrong = readout(sure, [1] * 10, "holdout")
    with pytest.raises(NotMeasured, match="hold every class"):
        conformal_size()(readout(sure, [0] * 10), wrong)
