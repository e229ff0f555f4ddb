"""Detector of prompts that ask for the forget set: a linear classifier of their tokens' n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.models.prompts import hash_features

FALSE_ALARMS = 0.01
"""Share of the retain prompts that the threshold flags at most, each scored by a classifier not fitted to it."""

Prompts = Sequence[Sequence[int]]


@dataclass
class Detector:
    """Logistic regression on hashed n-grams of a prompt's token ids."""

    weight_F: Tensor
    bias: float
    threshold: float

    def score(self, prompts: Prompts) -> np.ndarray:
        """Log-odds [N] that a prompt asks for the forget set."""
        if not len(prompts):
            return np.zeros(0)
        return np.asarray(hash_features(prompts) @ self.weight_F.double().numpy() + self.bias)

    def flags(self, prompts: Prompts) -> np.ndarray:
        """Mask [N] of the prompts above the threshold."""
        return self.score(prompts) > self.threshold

    def settings(self) -> dict[str, float]:
        return {"bias": self.bias, "threshold": self.threshold}

    @staticmethod
    def restore(settings: dict[str, Any], weight_F: Tensor) -> Detector:
        return Detector(weight_F, float(settings["bias"]), float(settings["threshold"]))


def fit(forget: Prompts, others: Prompts, notes: dict[str, Any]) -> Detector:
    """Fit the classifier of forget prompts against others; notes get its cross-validated rates, and a remark where
    the threshold allows more false alarms than FALSE_ALARMS.

    A prompt in both sets (a page's common opening) counts as one of the others.
    """
    # Heavy, and `expunge list` imports every guard.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    known = {tuple(prompt) for prompt in others}
    mine = [prompt for prompt in forget if tuple(prompt) not in known] or list(forget)
    features = hash_features([*mine, *others])
    labels = np.array([1] * len(mine) + [0] * len(others))
    model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000)
    folds = min(5, len(mine), len(others))
    threshold, rates = 0.0, {}
    if folds >= 2:
        split = StratifiedKFold(folds, shuffle=True, random_state=0)
        score_N = cross_val_predict(model, features, labels, cv=split, method="decision_function")
        threshold = float(max(0.0, np.quantile(score_N[labels == 0], 1 - FALSE_ALARMS)))
        # Never above the forget prompts' own median: a detector that flags nothing guards nothing.
        median = float(np.median(score_N[labels == 1]))
        if median < threshold:
            notes.setdefault("remarks", []).append(
                "The detector's threshold is the median of the forget prompts, below the quantile that keeps false "
                f"alarms at {FALSE_ALARMS:.0%}: the two kinds of prompts are hard to tell apart."
            )
        threshold = min(threshold, median)
        rates = {
            "recall": float((score_N[labels == 1] > threshold).mean()),
            "false_alarms": float((score_N[labels == 0] > threshold).mean()),
        }
    model.fit(features, labels)
    notes["detector"] = rates
    return Detector(torch.tensor(model.coef_[0], dtype=torch.float32), float(model.intercept_[0]), threshold)
