"""A model that somebody else changed, as a method: `{model: FOLDER}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model
from expunge.core.files import digest_folder
from expunge.core.variables import expand
from expunge.methods._other_model import check_other, weights_of
from expunge.models.weights import fold
from expunge.training.checkpoint import restore

NAME = "given"
"""What evidence calls the method."""


MODEL_OPTIONS = ("model", "start")
"""Options of methods that name another model."""


def digest_models(described: Any) -> dict[str, str]:
    """`FOLDER/FILE`, the folder as it was written -> SHA-256 of every file of the models that a method names."""
    found: dict[str, str] = {}
    for name, value in described.items() if isinstance(described, Mapping) else ():
        if name in MODEL_OPTIONS and isinstance(value, str):
            folder = Path(expand(value, f"method.{name}"))
            files = digest_folder(folder) if folder.is_dir() else {}
            found |= {f"{value}/{path}": digest for path, digest in files.items()}
        found |= digest_models(value)
    return found


class Given(Method):
    """Take the weights of the changed model."""

    steps = 0

    def __init__(self, source: str, where: str) -> None:
        super().__init__()
        self.source, self.where = source, where

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        check_other(self.source, model, self.where)
        return []

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        restore(model.module, weights_of(self.source, model, self.where), "")
        return model
