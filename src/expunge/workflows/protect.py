"""Protect pictures before they are given away: what is trained on them does not read clean ones (`expunge mark`)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.core import registry
from expunge.core.card import Example, ProtectionCard
from expunge.core.errors import BadInput, Faults
from expunge.core.files import digest_file
from expunge.data.examples import form
from expunge.data.load import load
from expunge.data.texts import write_rows
from expunge.methods.protecting import Pictures, Protection
from expunge.models.classifier import floats
from expunge.models.views import channels_first
from expunge.pipeline import out_folder
from expunge.pipeline.folders import free_folder
from expunge.workflows.mark import PUBLISHED

SMALLEST = 4
"""Pixels of a side that the protections' network can read."""


def protect(
    data: Any, *, out: str, scheme: str | Mapping[str, Any] = "class_noise", secret: int | None = None
) -> dict[str, Any]:
    """Write the folder `out` with published.jsonl, the pictures protected, whole or not at all; returns its figures.

    data: rows with a square image and a label each, all of one shape. scheme: the name of a protection, or {name:
    {option: value}}. secret: the seed of all draws; by default it is drawn and not stored. Raises BadInput.
    """
    faults = Faults()
    rows: list[Example] = []
    name, change = "", None
    options: dict[str, Any] = {}
    with faults:
        rows = list(load(data, "data"))
        _check_rows(rows)
    with faults:
        free_folder(Path(out))
    with faults:
        name, change, options = _protection(scheme)
    faults.raise_any()
    assert change is not None
    before_NCHW = channels_first([floats(row["image"]) for row in rows])
    labels_N = torch.tensor([int(row["label"]) for row in rows])
    after_NCHW = change(Pictures(before_NCHW, labels_N, secrets.randbits(128) if secret is None else secret))
    moved_NCHW = (after_NCHW - before_NCHW).abs()
    with out_folder.whole(out) as folder:
        write_rows(folder / PUBLISHED, [_with(row, one) for row, one in zip(rows, after_NCHW, strict=True)])
    return {
        "scheme": name,
        "options": options,
        "rows": len(rows),
        "largest_change": round(float(moved_NCHW.max()), 4),
        "mean_change": round(float(moved_NCHW.mean()), 4),
        "published": str(Path(out) / PUBLISHED),
        "sha256": digest_file(Path(out) / PUBLISHED),
    }


def _protection(given: str | Mapping[str, Any]) -> tuple[str, Protection, dict[str, Any]]:
    """(name, protection, options) of a name or of {name: options}. Raises BadInput."""
    name, chosen = (given, {}) if isinstance(given, str) else next(iter(given.items()))
    plugin: registry.Plugin[ProtectionCard] = registry.load("protections", name, "unlearnable")
    options = plugin.validate(chosen or {}, f"unlearnable.{name}")
    return name, plugin.factory(**options), options


def _check_rows(rows: Sequence[Example]) -> None:
    """Raises BadInput unless all rows are square pictures of one shape, in bytes or in 0-1, of two classes or more."""
    for i, row in enumerate(rows):
        where, shape = f"row {i + 1}", np.shape(row.get("image", 0))
        if form(row) != ("image", "label") or len(shape) not in (2, 3):
            fix = "give images with labels; texts are marked with --kind"
            raise BadInput.of("data", where, "is not a picture with a label", fix)
        if shape != np.shape(rows[0]["image"]) or shape[0] != shape[1] or shape[0] < SMALLEST:
            why = f"has an image of {' x '.join(map(str, shape))}"
            raise BadInput.of("data", where, why, f"bring all to one square shape, {SMALLEST} pixels or more")
        pixels = np.asarray(row["image"])
        if pixels.dtype != np.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):
            why = f"has pixels from {pixels.min():.3g} to {pixels.max():.3g}"
            raise BadInput.of("data", where, why, "give bytes, or values in 0-1")
    if len({int(row["label"]) for row in rows}) < 2:
        raise BadInput.of("data", f"{len(rows)} rows", "are of fewer than two classes", "give rows of all classes")


def _with(row: Example, pixels_CHW: torch.Tensor) -> Example:
    """The row with these pixels, in the form and type of its own."""
    own = np.asarray(row["image"])
    pixels = pixels_CHW[0] if own.ndim == 2 else pixels_CHW.movedim(0, -1)
    shown = pixels.numpy()
    return {**row, "image": np.rint(255 * shown).astype(np.uint8) if own.dtype == np.uint8 else shown.astype(own.dtype)}
