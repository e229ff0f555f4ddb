"""The figures of encoders on embeddings whose answers are worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from expunge.attacks.view_consistency_auc import mean_cosine
from expunge.evaluation.hidden_states import effective_rank
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured, has
from expunge.metrics.knn_accuracy import knn_accuracy, vote
from expunge.metrics.linear_probe import linear_probe
from expunge.metrics.rankme import rankme
from expunge.models.families.encoder import FAMILY


def embedded(points: Any, classes: list[int | None], split: str = "forget") -> Readout:
    rows = [{} if label is None else {"label": label} for label in classes]
    x_ND = np.array(points, dtype=np.float32)
    return Readout(split, "after", rows, None, np.ones(len(rows), dtype=int), own={"embedding": x_ND})


RIGHT, UP = [1.0, 0.0], [0.0, 1.0]


def test_a_reading_has_the_channels_of_its_family() -> None:
    assert "embedding" in FAMILY.gives and has(embedded([RIGHT], [0]), "embedding")
    assert not has(Readout("forget", "after", [{}], None, np.ones(1, dtype=int)), "embedding")


def test_the_nearest_neighbour_decides() -> None:
    bank = embedded([RIGHT, UP], [3, 7], "retain")
    near = embedded([[2.0, 0.1], [0.1, 5.0], [9.0, 1.0]], [3, 7, 7])
    assert knn_accuracy(k=1)(near, bank).tolist() == [True, True, False]


def test_near_votes_weigh_more_than_many() -> None:
    """One vote at cosine 1 is exp(1/.07), two at cosine .9 are 2 exp(.9/.07): the one wins, by 4.2 to 2."""
    aside = [0.9, math.sqrt(1 - 0.81)]
    bank_MD = np.array([RIGHT, aside, aside])
    assert vote(np.array([RIGHT]), bank_MD, np.array([1, 2, 2]), 3, False).tolist() == [1]
    aside = [0.97, math.sqrt(1 - 0.97**2)]
    assert vote(np.array([RIGHT]), np.array([RIGHT, aside, aside]), np.array([1, 2, 2]), 3, False).tolist() == [2]


def test_an_example_is_no_neighbour_of_itself() -> None:
    retain = embedded([RIGHT, [1.0, 0.1], UP], [0, 0, 1], "retain")
    assert knn_accuracy(k=1)(retain, retain).tolist() == [True, True, False]


def test_a_probe_tells_what_a_line_divides() -> None:
    bank = embedded([[0.0, 5.0], [1.0, -5.0], [5.0, 4.0], [6.0, -3.0]], [0, 0, 1, 1], "retain")
    asked = embedded([[-1.0, 0.0], [8.0, 0.0], [8.0, 0.0]], [0, 1, 0])
    assert linear_probe()(asked, bank).tolist() == [True, True, False]


def test_on_retain_itself_the_probe_is_cross_validated() -> None:
    """Labels that nothing tells are right by chance, where a probe that had seen them would know most."""
    drawn = np.random.default_rng(0)
    noise = embedded(drawn.normal(size=(60, 50)), drawn.integers(0, 2, 60).tolist(), "retain")
    assert linear_probe()(noise, noise).mean() < 0.7
    again = embedded(noise.own["embedding"], [row["label"] for row in noise.examples])
    assert linear_probe()(again, noise).mean() > 0.9


@pytest.mark.parametrize("metric", [knn_accuracy(), linear_probe()])
def test_without_labels_nothing_is_measured(metric: Any) -> None:
    bank = embedded([RIGHT, UP], [0, 1], "retain")
    with pytest.raises(NotMeasured, match="1 examples of forget have no label"):
        metric(embedded([RIGHT, UP], [0, None]), bank)
    with pytest.raises(NotMeasured, match="diverged"):
        metric(embedded([[np.nan, 0.0]], [0]), bank)


def test_rankme_counts_directions() -> None:
    """Equal singular values: as many as there are; one direction: 1; singular values 3 and 1: exp of their entropy."""
    assert effective_rank(np.eye(4)) == pytest.approx(4, rel=1e-5)
    assert effective_rank(np.outer(np.ones(5), [1.0, 2.0, 0.0])) == pytest.approx(1, rel=1e-4)
    assert effective_rank(np.zeros((3, 2))) == 1
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(math.exp(entropy), rel=1e-5)
    found = rankme()(embedded([RIGHT, UP], [None, None]))
    assert found.value == pytest.approx(2, rel=1e-5) and found.n == 2 and found.low is None


def test_consistency_is_the_mean_cosine_of_different_views() -> None:
    """Three views at 0, 90 and 90 degrees: pairs 0, 0 and 1."""
    assert mean_cosine(np.array([RIGHT, UP, [0.0, 3.0]])) == pytest.approx(1 / 3)
    assert mean_cosine(np.array([RIGHT, [-2.0, 0.0]])) == pytest.approx(-1)
