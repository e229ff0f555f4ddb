"""Activation clustering: of a poisoned class the features fall into two clusters, and one belongs elsewhere."""

from __future__ import annotations

import warnings
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from sklearn.cluster import KMeans
from sklearn.decomposition import FastICA
from sklearn.metrics import silhouette_score

from expunge.core.card import DetectorCard
from expunge.evaluation.detection import Detector, Sample, Suspicion

CARD = DetectorCard(
    "Activation clustering",
    paper="arXiv:1811.03728",
    equation="algorithm 2",
    means="Rows of the smaller cluster of a class that a network trained without it does not count among that class. "
    "A class with more poisoned rows than rows of its own is judged the wrong way round.",
    fidelity="variant",
    leaves_out="the choice of the independent components: of several seeds that whose clusters are furthest apart in "
    "the features themselves, since one seed often finds a few outliers",
)
WIDEST = 1e-6
"""Directions of less variance than this share of the widest are left out."""
ITERATIONS, INITIALISATIONS = 200, 10
"""Of the components, which need not have converged, and of k-means, for each seed."""


def activation_clustering(
    *,
    dimensions: Annotated[int, Ge(2)] = 10,
    seeds: Annotated[int, Ge(1)] = 10,
    own: Annotated[float, Gt(0), Le(1)] = 0.5,
    share: Annotated[float, Gt(0), Le(1)] = 1.0,
) -> Detector:
    """Cluster the features of each class in two, and train without the smaller clusters to see where they belong.

    dimensions: independent components of the features. seeds: of these, of which the clusters with the best silhouette
    are taken. own: a cluster is poison where less than this share of it is recognised as its own class (exclusionary
    reclassification; 0.5 is the paper's l/p below 1). share: epochs of that training, as a share of the model's.

    A row's score is its place between the two centres (1: in the middle of the smaller cluster), times the share of
    that cluster that belongs elsewhere.
    """

    def detect(sample: Sample) -> Suspicion:
        sample.check_retrain("activation_clustering")
        count, labels_N = len(sample.labels_N), sample.labels_N
        place_N, small_N = np.zeros(count), np.zeros(count, dtype=bool)
        for label in np.unique(labels_N):
            rows = np.flatnonzero(labels_N == label)
            if len(rows) >= 2 * dimensions:
                place_N[rows] = _split(sample.features_ND[rows], dimensions, seeds, sample)
        small_N = place_N > 0.5
        guess_N = sample.predict(~small_N, share, "activation_clustering").argmax(-1)
        score_N, suspect_N, remarks = np.zeros(count), np.zeros(count, dtype=bool), {}
        for label in np.unique(labels_N[small_N]):
            cluster_N = small_N & (labels_N == label)
            elsewhere = float((guess_N[cluster_N] != label).mean())
            of_class_N = labels_N == label
            score_N[of_class_N] = elsewhere * place_N[of_class_N]
            suspect_N |= cluster_N & (1 - elsewhere < own)
            remarks[int(label)] = f"{elsewhere:.0%} of a cluster of {cluster_N.sum()} rows are recognised as others"
        return Suspicion(score_N, suspect_N, remarks)

    return detect


def _split(features_ND: np.ndarray, dimensions: int, seeds: int, sample: Sample) -> np.ndarray:
    """[N] place of each row between the centres of the larger cluster (0) and of the smaller (1), of the best split.

    Silhouettes are taken among the features: whitened components make any few outliers look like a cluster.
    """
    lead_ND = features_ND - features_ND.mean(0)
    spread_D = np.linalg.svd(lead_ND, compute_uv=False) ** 2
    rank = int((spread_D > WIDEST * spread_D[0]).sum()) if spread_D[0] > 0 else 0
    if rank < 2:
        return np.zeros(len(features_ND))
    best, place_N = -np.inf, np.zeros(len(features_ND))
    for number in range(seeds):
        seed = sample.derive("components", number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduce = FastICA(min(dimensions, rank), whiten="unit-variance", random_state=seed, max_iter=ITERATIONS)
            parts_NK = reduce.fit_transform(lead_ND)
        found = KMeans(2, n_init=INITIALISATIONS, random_state=seed).fit(parts_NK)
        if len(np.unique(found.labels_)) < 2:
            continue
        silhouette = float(silhouette_score(lead_ND, found.labels_))
        if silhouette > best:
            far_N2 = found.transform(parts_NK)
            small = int(np.bincount(found.labels_).argmin())
            best, place_N = silhouette, far_N2[:, 1 - small] / far_N2.sum(1).clip(1e-12)
    return place_N
