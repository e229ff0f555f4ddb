"""Detectors on features that we made: which rows they name, by which figures, and what they ask of a retraining."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expunge.core.errors import BadInput
from expunge.evaluation.detection import Sample
from expunge.evaluation.detectors.activation_clustering import activation_clustering
from expunge.evaluation.detectors.small_loss import small_loss
from expunge.evaluation.detectors.spectral_signatures import spectral_signatures

CLASSES, ROWS, WIDTH = 4, 80, 12


def features(poisoned: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([N, D] features, labels, whether a row is poisoned): class 0 has rows that lie elsewhere."""
    draw = np.random.default_rng(seed)
    label_N = np.repeat(np.arange(CLASSES), ROWS)
    poisoned_N = np.zeros(len(label_N), dtype=bool)
    poisoned_N[:poisoned] = True
    centre_CD = 5 * np.eye(CLASSES + 1, WIDTH)
    at_N = np.where(poisoned_N, CLASSES, label_N)
    # A part common to all rows: a mean far from 0, which scores that are not centred would see.
    return centre_CD[at_N] + draw.standard_normal((len(at_N), WIDTH)) + 7, label_N, poisoned_N


class Network:
    """A network that recognises rows as it is told to; remembers what it was trained on."""

    def __init__(self, guess_N: np.ndarray) -> None:
        self.guess_N = guess_N
        self.calls: list[tuple[np.ndarray, float]] = []

    def __call__(self, keep_N: np.ndarray, share: float) -> np.ndarray:
        self.calls.append((keep_N, share))
        return np.log(np.where(np.eye(CLASSES)[self.guess_N] == 1, 0.97, 0.01))


@pytest.mark.parametrize("poisoned", [12, 24, 36])
def test_activation_clustering_names_the_cluster_that_belongs_elsewhere(poisoned: int) -> None:
    features_ND, label_N, poisoned_N = features(poisoned)
    network = Network(np.where(poisoned_N, 2, label_N))
    found = activation_clustering(seeds=2)(Sample(features_ND, label_N, retrain=network))
    assert (found.suspect_N == poisoned_N).all()
    assert found.score_N[poisoned_N].min() > 0.5 > found.score_N[~poisoned_N].max()
    ((keep_N, share),) = network.calls
    assert share == 1.0 and not keep_N[poisoned_N].any(), "one training, without the clusters"
    assert all(keep_N[label_N == label].mean() >= 0.5 for label in range(CLASSES)), "the smaller ones"


def test_a_cluster_that_is_recognised_as_its_class_is_no_poison() -> None:
    features_ND, label_N, _ = features(24)
    found = activation_clustering(seeds=2)(Sample(features_ND, label_N, retrain=Network(label_N)))
    assert not found.suspect_N.any() and not found.score_N.any()
    assert "0% of a cluster of 24 rows" in found.remarks[0]


def test_a_class_of_too_few_rows_or_of_equal_ones_is_left_alone() -> None:
    features_ND, label_N, poisoned_N = features(24)
    features_ND[label_N == 1] = 1.0
    keep = (label_N != 3) | (np.arange(len(label_N)) % 8 == 0)
    sample = Sample(features_ND[keep], label_N[keep], retrain=Network(np.where(poisoned_N, 2, label_N)[keep]))
    found = activation_clustering(seeds=2)(sample)
    assert (found.suspect_N == poisoned_N[keep]).all() and not {1, 3} & set(found.remarks)


def test_spectral_scores_are_centred_projections_of_the_class_that_scatters() -> None:
    features_ND, label_N, poisoned_N = features(24)
    found = spectral_signatures(share=0.3)(Sample(features_ND, label_N))
    of_class_N = label_N == 0
    lead_ND = features_ND[of_class_N] - features_ND[of_class_N].mean(0)
    _, vectors = np.linalg.eigh(np.cov(lead_ND.T))
    np.testing.assert_allclose(found.score_N[of_class_N], np.abs(lead_ND @ vectors[:, -1]), rtol=1e-6)
    assert not found.score_N[~of_class_N].any() and found.suspect_N.sum() == round(1.5 * 0.3 * ROWS)
    assert found.suspect_N[poisoned_N].all() and list(found.remarks) == [0]
    uncentred_N = np.abs(features_ND[of_class_N] @ vectors[:, -1])
    worst = set(np.argsort(-uncentred_N)[:24]) & set(range(24))
    assert len(worst) < 24, "the mean hides them from a projection that is not centred"


def test_small_loss_reads_each_row_with_a_network_that_never_saw_it() -> None:
    features_ND, label_N, _ = features(0)
    wrong_N = np.arange(len(label_N)) % 10 == 0
    given_N = np.where(wrong_N, (label_N + 1) % CLASSES, label_N)
    network = Network(label_N)
    found = small_loss(folds=4, share=0.25)(Sample(features_ND, given_N, retrain=network))
    assert (found.suspect_N == wrong_N).all()
    np.testing.assert_allclose(found.score_N, np.where(wrong_N, -np.log(0.01), -np.log(0.97)))
    kept = np.array([keep_N for keep_N, _ in network.calls])
    assert len(kept) == 4 and (kept.sum(0) == 3).all(), "each row is left out once"
    assert {share for _, share in network.calls} == {0.25}
    assert found.remarks[1] == "most of them look like class 0"


def test_the_folds_follow_the_seed() -> None:
    features_ND, label_N, _ = features(0)

    def folds(seed: int) -> Any:
        network = Network(label_N)
        small_loss()(Sample(features_ND, label_N, seed, network))
        return np.array([keep_N for keep_N, _ in network.calls])

    assert (folds(1) == folds(1)).all() and (folds(1) != folds(2)).any()


@pytest.mark.parametrize("detect", [activation_clustering(), small_loss()])
def test_without_a_manifest_it_says_so_before_it_begins(detect: Any) -> None:
    with pytest.raises(BadInput, match=r"has no training manifest, and .* trains networks as the model was"):
        detect(Sample(np.zeros((0, 2)), np.zeros(0, dtype=int)))
