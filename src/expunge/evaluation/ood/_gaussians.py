"""Normal distributions of features: one for each class with a shared covariance, or one for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

RIDGE = 1e-6
"""Added to the covariance's diagonal, so that it can be inverted."""


@dataclass(frozen=True)
class Gaussians:
    """K normal distributions with one covariance: means_KD, and the Cholesky factor of the covariance."""

    means_KD: np.ndarray
    factor: tuple[np.ndarray, bool]

    @classmethod
    def fit(cls, features_ND: np.ndarray, labels_N: np.ndarray) -> Gaussians:
        """The mean of each label, and the mean outer product of the rows' deviations from their label's mean."""
        names, place_N = np.unique(labels_N, return_inverse=True)
        means_KD = np.stack([features_ND[place_N == k].mean(axis=0) for k in range(len(names))])
        lead_ND = features_ND - means_KD[place_N]
        covariance_DD = lead_ND.T @ lead_ND / len(lead_ND) + RIDGE * np.eye(features_ND.shape[1])
        return cls(means_KD, cho_factor(covariance_DD, lower=True))

    def distances(self, features_ND: np.ndarray) -> np.ndarray:
        """[N, K] squared Mahalanobis distances to each mean."""
        found = []
        for mean_D in self.means_KD:
            lead_ND = features_ND - mean_D
            found.append((lead_ND * cho_solve(self.factor, lead_ND.T).T).sum(axis=1))
        return np.stack(found, axis=1)
