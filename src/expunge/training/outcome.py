"""The outcome of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from expunge.training.precision import Precision


@dataclass
class Outcome:
    """How a run went: for the evidence."""

    steps: int
    seconds: float
    tokens: int
    learning_rate: float
    rate_source: str
    precision: Precision = "fp32"
    curve: list[dict[str, Any]] = field(default_factory=list)
    stop: dict[str, Any] = field(default_factory=dict)
