"""A plug-in's card: what it is, where it comes from, what it needs. Plan reads cards, not code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Example = dict[str, Any]
Needs = Mapping[str, Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A further stream of examples in a step: a split, seen through `make`.

    `make` maps an example to the example that is forwarded, or to None (the row is dropped).
    """

    split: str
    make: Callable[[Example], Example | None] | None = None


@dataclass(frozen=True)
class Card:
    """What a plug-in says of itself.

    needs, origin: stream -> channels of the moving model, and of the model before the change (for
        methods other than terms: split -> nothing). For metrics: split -> channels, where the
        split "split" stands for each split in turn, "gold.forget" for gold's readout and
        "before.retain" for that of the model before the change.
    fields: split -> keys that its examples must carry. capabilities: what the subject must have.
    wraps: what a wrapper accepts as its inner method. yields: what the method leaves behind.
    """

    title: str
    paper: str = "baseline"
    equation: str = ""
    needs: Needs = field(default_factory=dict)
    origin: Needs = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)
    fields: Needs = field(default_factory=dict)
    capabilities: Iterable[str] = ()
    wraps: Iterable[str] = ()
    yields: str = "weights"
    keeps: str = ""
    """What of the forget set the method saves in the model's folder; a redacted run refuses it."""
    # metrics and attacks
    side: str = ""
    better: str = ""
    unit: str = ""
    splits: Iterable[str] = ("forget", "retain", "holdout", "test")
    aggregate: str = "mean"
    level: str = ""
    """"standard" or "deep": an attack that works on a model, and the audit that runs it first; "": arithmetic on readouts.
    Its `needs` name the splits whose examples it takes."""
    more: Iterable[str] = ()
    """Suffixes of the further scores that such an attack gives."""
    passes: float = 0.0
    """For the plan: about how many forward passes over the forget set such an attack takes (a training step counts three)."""
    means: str = ""
    """What a reader may conclude from the figure, and what not."""
