"""The parts of the evidence that the report of a classifier draws: confusions, a map of features, weighed pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from expunge.evaluation.readout import Readout
from expunge.pipeline.views import Views

MAX_CLASSES = 20
"""Classes of a confusion matrix that a page can show."""
UNSEEN = ("test", "test_forget")
SMALLEST = 96
"""Pixels of the side to which small maps are enlarged."""
WARM, COLD = np.array([196, 72, 26]), np.array([51, 85, 209])


def confusions(readouts: Mapping[str, Mapping[str, Readout]]) -> dict[str, Any]:
    """Role -> [C][C] counts of unseen rows by label and prediction, and which labels the forget set alone has.

    Unseen are the test rows, those of a forgotten class among them; without any, the forget and retain rows. Empty for
    models of no classes, or of more than `MAX_CLASSES`.
    """
    after = readouts["after"]
    splits = [split for split in UNSEEN if split in after] or [s for s in ("retain", "forget") if s in after]
    counts: dict[str, list[list[int]]] = {}
    for role, read in readouts.items():
        parts = [read[split] for split in splits if split in read]
        if len(parts) != len(splits) or any(one.logp_NC is None or one.labels_N is None for one in parts):
            continue
        logp_NC = np.concatenate([one.logp_NC for one in parts if one.logp_NC is not None])
        labels_N = np.concatenate([one.labels_N for one in parts if one.labels_N is not None])
        classes = logp_NC.shape[1]
        if classes > MAX_CLASSES:
            return {}
        found = np.bincount(labels_N * classes + logp_NC.argmax(axis=1), minlength=classes**2)
        counts[role] = found.reshape(classes, classes).tolist()
    if "after" not in counts:
        return {}
    own, others = (_labels(after, split) for split in ("forget", "retain"))
    return {"splits": splits, "counts": counts, "forgotten": sorted(own - others)}


def _labels(readouts: Mapping[str, Readout], split: str) -> set[int]:
    found = readouts[split].labels_N if split in readouts else None
    return set() if found is None else set(map(int, found))


def feature_map(views: Mapping[str, Views]) -> dict[str, dict[str, list[list[float]]]]:
    """Role -> split -> points: the two main directions of each model's own features of retain and forget."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for role, view in views.items():
        if "forget" not in view.features:
            continue
        together = np.concatenate(list(view.features.values()))
        if min(together.shape) < 2 or not np.isfinite(together).all():
            continue
        plane = PCA(2, svd_solver="full").fit(together)
        found[role] = {split: plane.transform(x).round(3).tolist() for split, x in view.features.items()}
    return found


def weighed_pixels(views: Mapping[str, Views]) -> dict[int, dict[str, bytes]]:
    """Row of the forget set -> role -> PNG of its pixels' parts in the label's probability.

    Warm: for the label; cold: against it. The colours of a row have one scale for all models.
    """
    shown = {role: view for role, view in views.items() if view.pixels is not None}
    found: dict[int, dict[str, bytes]] = {}
    for k, row in enumerate(next(iter(shown.values())).rows if shown else ()):
        maps = {role: view.pixels[k] for role, view in shown.items() if view.pixels is not None}
        most = max(float(np.abs(one).max()) for one in maps.values())
        if np.isfinite(most):
            found[row] = {role: _png(one / (most or 1.0)) for role, one in maps.items()}
    return found


def _png(parts_HW: np.ndarray) -> bytes:
    """Parts in -1 to 1 as colours on nothing, to lie on a page of any theme."""
    colour = np.where(parts_HW[..., None] > 0, WARM, COLD)
    opacity = np.abs(parts_HW[..., None]) ** 0.5 * 255
    picture = Image.fromarray(np.concatenate([colour, opacity], axis=-1).round().astype(np.uint8), "RGBA")
    times = max(1, SMALLEST // max(1, min(picture.size)))
    if max(picture.size) > 2 * SMALLEST:
        picture.thumbnail((SMALLEST, SMALLEST))
    file = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
