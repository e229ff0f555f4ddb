"""Whether a model came from a federation whose server kept of its rounds what erasing a client takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge.core.contracts import Model

HISTORY = "federation.safetensors"
"""Beside a model that a federation trained: what its server kept of the rounds."""
FEDERATED = "federation"
"""The capability of such a model."""


def with_history(model: Model, folder: Path) -> Model:
    """The model, which knows the folder of its rounds where there are any."""
    if (folder / HISTORY).is_file():
        found: Any = model
        found.history = folder
        found.capabilities = model.capabilities | {FEDERATED}
    return model


def history_of(model: Model) -> Path:
    """The folder of the rounds of a model that has FEDERATED."""
    known: Any = model
    folder: Path = known.history
    return folder
