"""Calibration, forgetting by class and the rank of features, each worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from readouts import classifier
from test_attacking import aimed, linear

from expunge.attacks.representation_rank import rank_share, representation_rank
from expunge.evaluation.scores import NotMeasured, measure
from expunge.metrics.brier import brier
from expunge.metrics.class_gap import class_gap
from expunge.metrics.ece import ece, ece_from

LABELS = frozenset({"labels", "nll"})


def test_the_brier_score_is_half_of_the_squared_distance() -> None:
    """(.2² + .2²) / 2, (.8² + .8²) / 2 and 0."""
    found = brier()(classifier([[0.8, 0.2], [0.8, 0.2], [1e-300, 1.0]], [0, 1, 1]))
    assert found == pytest.approx([0.04, 0.64, 0.0])


def test_the_calibration_error_by_hand() -> None:
    """Two rows at .8, one of them right: |.8 - .5|; two at .6, both right: |.6 - 1|; half of the rows each."""
    p = [[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.6, 0.4]]
    found = ece()(classifier(p, [0, 1, 1, 0]))
    assert found.value == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    assert found.n == 4 and found.low is not None and found.high is not None and found.low < found.value < found.high
    sure = ece()(classifier([[1 - 1e-12, 1e-12]] * 30, [0] * 30))
    assert sure.value == pytest.approx(0, abs=1e-9) and sure.high is not None and sure.high > 0.05


def test_opposite_errors_within_a_bin_cancel_and_across_bins_do_not() -> None:
    assert float(ece_from(np.array([0.5, 0.5]), np.array([0.0, 1.0]))) == pytest.approx(0)
    assert float(ece_from(np.array([0.5, 0.9]), np.array([1.0, 0.0]))) == pytest.approx((0.5 + 0.9) / 2)


def test_classes_of_the_forget_set_are_held_against_one_another() -> None:
    """Class 0 falls from .9 to .1, class 1 from .9 to .7, class 2 has too few rows to say."""
    labels = [0] * 6 + [1] * 6 + [2]

    def said(p: dict[int, float]) -> list[list[float]]:
        return [[p[y] if c == y else (1 - p[y]) / 2 for c in range(3)] for y in labels]

    before = classifier(said({0: 0.9, 1: 0.9, 2: 0.9}), labels, role="before")
    after = classifier(said({0: 0.1, 1: 0.7, 2: 0.9}), labels)
    found = class_gap()(after, before)
    assert found.value == pytest.approx(0.6) and found.n == 12
    assert "worst class 0 -0.800, best class 1 -0.200" in found.why and "examples left out: 1" in found.why
    with pytest.raises(NotMeasured, match="fewer than 2 classes have 5"):
        class_gap()(classifier([[0.5, 0.5]] * 6, [0] * 6), classifier([[0.9, 0.1]] * 6, [0] * 6))
    scores = {(s.name, s.role): s for s in measure({"before": {"forget": before}, "after": {"forget": after}}, LABELS)}
    assert scores["alignment_class_gap", "after"].value == pytest.approx(0.6)


def test_the_rank_of_features() -> None:
    """Equal singular values use all directions; one direction is 1 of 4; two in the ratio 3 : 1 by their entropy."""
    assert rank_share(np.eye(4)) == pytest.approx(1, abs=1e-4)
    assert rank_share(np.outer(np.arange(1, 6), np.ones(4))) == pytest.approx(0.25, abs=1e-4)
    two = np.diag([3.0, 1.0, 0.0])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert rank_share(two) == pytest.approx(np.exp(entropy) / 3, abs=1e-4)
    assert rank_share(np.zeros((3, 3))) == 0


def test_the_rank_of_a_model_is_that_of_its_last_layers_inputs() -> None:
    draw = np.random.default_rng(0)
    rows = [{"features": x.astype(np.float32), "label": 0} for x in draw.normal(size=(40, 2))]
    found = representation_rank()(aimed(linear([[1.0, 0.0], [0.0, 1.0]]), {"forget": rows[:2], "retain": rows}))
    assert found.figure.value == pytest.approx(rank_share(np.stack([row["features"] for row in rows])), abs=1e-6)
    assert found.figure.low < found.figure.value <= found.figure.high and found.figure.n == 40
    with pytest.raises(NotMeasured, match="20 retain examples"):
        representation_rank()(aimed(linear([[1.0, 0.0], [0.0, 1.0]]), {"forget": rows[:2], "retain": rows[:5]}))
