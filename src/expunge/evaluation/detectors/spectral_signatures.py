"""Spectral signatures: poisoned rows of a class lie far out along the direction in which its features vary most."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt, Lt

from expunge.core.card import DetectorCard
from expunge.evaluation.detection import Detector, Sample, Suspicion

CARD = DetectorCard(
    "Spectral signatures",
    paper="arXiv:1811.00636",
    equation="algorithm 1",
    capabilities=(),
    means="The rows of the suspect class that lie furthest out along its first direction, a fixed share of them: it "
    "names as many where nothing is poisoned.",
    fidelity="variant",
    leaves_out="the removal from every class, which takes as many clean rows from each: the suspect class is the one "
    "whose rows scatter most",
)
MORE = 1.5
"""The paper removes 1.5 times as many rows as are expected to be poisoned."""


def spectral_signatures(*, share: Annotated[float, Gt(0), Lt(0.5)] = 0.33) -> Detector:
    """Score each row by its distance from its class's mean along the class's first singular direction.

    |(R - mean) v|, with centred features. share: of the suspect class, expected to be poisoned; 1.5 times as many rows
    are suspects (at most the whole class). The suspect class has the largest mean squared distance from its mean.
    """

    def detect(sample: Sample) -> Suspicion:
        score_N, suspect_N = np.zeros(len(sample.labels_N)), np.zeros(len(sample.labels_N), dtype=bool)
        scatter = {
            int(label): float(sample.features_ND[sample.labels_N == label].var(0).sum())
            for label in np.unique(sample.labels_N)
        }
        label = max(scatter, key=lambda one: scatter[one])
        rows = np.flatnonzero(sample.labels_N == label)
        lead_ND = sample.features_ND[rows] - sample.features_ND[rows].mean(0)
        direction_D = np.linalg.svd(lead_ND, full_matrices=False)[2][0]
        score_N[rows] = np.abs(lead_ND @ direction_D)
        count = min(len(rows), round(MORE * share * len(rows)))
        suspect_N[rows[np.argsort(-score_N[rows], kind="stable")[:count]]] = True
        others = max((value for one, value in scatter.items() if one != label), default=0.0)
        ratio = scatter[label] / others if others > 0 else np.inf
        return Suspicion(score_N, suspect_N, {label: f"its rows scatter {ratio:.2f} times as far as the next class's"})

    return detect
