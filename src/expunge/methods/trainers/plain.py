"""Ordinary training on all the data."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.methods.objective import plain_training

DISTRIBUTED = True
"""Two processes make the model of one with it."""


def train(fresh: Model, data: Sequence[Example], context: Context) -> Model:
    """Minimise the model's own loss over the data: bases and gold models alike."""
    return plain_training()(fresh, {"retain": list(data)}, context)
