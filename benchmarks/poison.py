"""Detection of a backdoor on one model: our detectors beside those of the Adversarial Robustness Toolbox.

ART takes the last layer of a module as its features, which for a classifier are the logits; it is run so, and on a
module that returns the features below. Needs `pip install 'expunge[poison]'`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.core.extras import require
from expunge.data.load import load
from expunge.evaluation.detection import penultimate
from expunge.models.open import open_model
from expunge.pipeline.worlds import folder_of
from expunge.workflows.find import find

DETECTORS: Mapping[str, str] = {
    "activation_clustering": "ActivationDefence",
    "spectral_signatures": "SpectralSignatureDefense",
}
EXPECTED = 0.33
"""Share of a class that spectral signatures expect to be poisoned, ART's default and ours."""


class Outputs(nn.Module):
    """A network of one layer, which gives what a layer of the model gave."""

    def __init__(self, outputs_NK: np.ndarray) -> None:
        super().__init__()
        self.layer = nn.Embedding.from_pretrained(torch.from_numpy(outputs_NK).float())

    def forward(self, place_B1: torch.Tensor) -> torch.Tensor:
        """place_B1: the number of a row -> its outputs."""
        return self.layer(place_B1[:, 0].long())


def flagged_by_art(name: str, outputs_NK: np.ndarray, labels_N: np.ndarray, classes: int) -> np.ndarray:
    """[N] the rows that a detector of ART would remove, where these are the outputs of the last layer."""
    from art.defences.detector import poison as art
    from art.estimators.classification import PyTorchClassifier

    places = np.arange(len(labels_N), dtype=np.float32)[:, None]
    classifier = PyTorchClassifier(Outputs(outputs_NK), nn.CrossEntropyLoss(), input_shape=(1,), nb_classes=classes)
    np.random.seed(0)
    detector = getattr(art, DETECTORS[name])(classifier, places, np.eye(classes)[labels_N])
    options = {"nb_clusters": 2, "nb_dims": 10, "reduce": "PCA"} if name == "activation_clustering" else {}
    _, clean = detector.detect_poison(**options)
    return np.asarray(clean) == 0


def rates(flagged_N: np.ndarray, poisoned_N: np.ndarray) -> dict[str, float]:
    """Recall, precision and the share of clean rows that are flagged."""
    hits = float((flagged_N & poisoned_N).sum())
    return {
        "recall": round(hits / int(poisoned_N.sum()), 3),
        "precision": round(hits / max(1, int(flagged_N.sum())), 3),
        "false_positives": round(float(flagged_N[~poisoned_N].mean()), 3),
    }


def main() -> int:
    """Print a line per detector and layer, and last a JSON object; 1 where our clustering does not find the trigger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="digits_backdoor")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    require("benchmark", "poison", "art", "poison")
    warnings.simplefilter("ignore")
    name = f"builtin:{given.world}@{given.seed}"
    rows, model = load(f"{name}/train", "data"), open_model(folder_of(name))
    poisoned_N = np.array([row["poisoned"] for row in rows])
    labels_N = np.array([row["label"] for row in rows])
    head: Any = [part for part in model.module.modules() if isinstance(part, nn.Linear)][-1]
    features_ND = penultimate(model, rows)
    logits_NC = features_ND @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    table: dict[str, Any] = {}
    for detector in DETECTORS:
        found = find("poison", rows, name, detector=detector, truth="poisoned")
        flagged_N = np.isin(np.arange(len(rows)), [one["row"] - 1 for one in found["suspects"]])
        auc = next(score for score in found["scores"] if score["name"].endswith("_auc"))
        interval = [round(auc[end], 3) for end in ("value", "low", "high")]
        table[f"expunge {detector}"] = {**rates(flagged_N, poisoned_N), "auc": interval}
        for layer, outputs_NK in (("logits", logits_NC), ("features", features_ND)):
            flagged_N = flagged_by_art(detector, outputs_NK, labels_N, logits_NC.shape[1])
            table[f"ART {detector} on {layer}"] = rates(flagged_N, poisoned_N)
    for line, figures in table.items():
        print(f"{line:48s} {figures}", flush=True)
    ours = table["expunge activation_clustering"]["recall"]
    theirs = table["ART activation_clustering on features"]["recall"]
    shown = {"name": "poison", "ratio": round(ours / max(theirs, 1e-9), 3), "unit": "recall", "ours": ours}
    print(json.dumps({**shown, "theirs": theirs, "control": int(poisoned_N.sum()), "table": table}))
    return int(table["expunge activation_clustering"]["auc"][0] <= 0.95)


if __name__ == "__main__":
    sys.exit(main())
