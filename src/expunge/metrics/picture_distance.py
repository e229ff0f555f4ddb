"""Fréchet distance of generated to real pictures, on the first judge's features."""

from __future__ import annotations

import numpy as np
from scipy.linalg import sqrtm

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured

CARD = MetricCard(
    "Distance of pictures",
    paper="arXiv:1706.08500",
    equation="6, on the judge's own features instead of Inception's",
    side="utility",
    better="lower",
    unit="distance",
    capabilities=("pictures",),
    needs={"split": {"picture_features", "judged_real"}},
    splits=("retain", "test"),
    means="How far the generated pictures are from the real ones of the same split, all classes together. It is biased "
    "upwards by small samples, so compare it at equal n, with that of the model before the change and of gold's; it is "
    "no FID.",
)


def picture_distance() -> Metric:
    """The Fréchet distance between two Gaussians: of the features of generated and of real pictures."""

    def values(split: Readout) -> Figure:
        made_ND, real_ND = split.own["picture_features"], split.own["judged_real"][:, 2:]
        if len(made_ND) < 2 or not (np.isfinite(made_ND).all() and np.isfinite(real_ND).all()):
            raise NotMeasured("some pictures have no features")
        return Figure(frechet(made_ND, real_ND), None, None, len(made_ND))

    return values


def frechet(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """|mean difference|^2 + trace(A + B - 2 (A B)^1/2), of the covariances A and B."""
    a_DD, b_DD = (np.cov(one.astype(float), rowvar=False) + 1e-6 * np.eye(one.shape[1]) for one in (x_ND, y_MD))
    root_DD = np.real(sqrtm(a_DD @ b_DD))
    apart = np.square(x_ND.mean(0) - y_MD.mean(0)).sum()
    return float(max(0.0, apart + np.trace(a_DD + b_DD - 2 * root_DD)))
