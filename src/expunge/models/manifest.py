"""`expunge.json` beside a model: how it was trained, so that it can be trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.data.content import content_key, content_keys
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.models import schemas

MANIFEST = "expunge.json"
"""Beside a model that `expunge train` made: how to train it again."""


def manifest_of(folder: str | Path, field: str = "model") -> dict[str, Any] | None:
    """The training manifest beside a model, checked whole; None where there is none. Raises BadInput."""
    path = Path(folder) / MANIFEST
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a hub name that can be no path
        return None
    return schemas.read(path, schemas.Manifest, field) if there else None


def left_manifest(manifest: Mapping[str, Any], forget: Sequence[Example]) -> dict[str, Any]:
    """The manifest after an exact deletion: the hashes of what is left, and no deleted example given inline."""
    data = manifest["data"]
    rows = load(data, "data", manifest.get("columns") or {})
    contents = content_keys(forget)
    gone = {identity(row)[:16] for row in rows if content_key(row) in contents}
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        data = [given for given, row in zip(data, rows, strict=True) if content_key(row) not in contents]
    left = {"hashes": [key for key in manifest["hashes"] if key not in gone]}
    if manifest.get("contents"):
        left["contents"] = [key for key in manifest["contents"] if key not in {name[:16] for name in contents}]
    return {**manifest, "data": data, **left}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a trained model. Raises BadInput."""
    found = manifest_of(folder)
    if found is None:
        raise BadInput.of("model", str(folder), f"has no training manifest ({MANIFEST})", "train the model again")
    return found


def retraining_tokens(manifest: Mapping[str, Any] | None, splits: Mapping[str, Sequence[Example]]) -> int | None:
    """Tokens that training without the forget set takes, from the manifest; None where it does not say."""
    known = manifest or {}
    if not known.get("tokens") or not known.get("hashes"):
        return None
    return round(known["tokens"] * (1 - len(splits["forget"]) / len(known["hashes"])))
