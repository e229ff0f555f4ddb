"""A model that somebody else changed, as a method: `{model: FOLDER}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model
from expunge.methods._other_model import check_other, weights_of
from expunge.models.weights import fold
from expunge.training.checkpoint import restore

NAME = "given"
"""What evidence calls the method."""


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
