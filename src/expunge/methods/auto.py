"""`method: auto`: the methods that measurements support, each as a ladder from the gentlest to the strongest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from expunge.core.errors import BadInput
from expunge.core.request import parse

NAME = "auto"
COST = {"suppress": 0.2, "erase": 0.5}
"""Purpose -> tokens of all trials together at most, as a share of a retraining's."""


class AutoOptions(BaseModel):
    """Options of `method: auto`.

    trials: runs at most, each at another strength. cost: tokens of all trials together at most, as a share of a
    retraining's, where these are known, so that 1 allows a retraining; None: COST of the purpose. exact: whether an
    exact scheme or a retraining may be chosen. rungs: methods to try in the place of ours, the gentlest first; start:
    the first that is tried of these. ways: how many ladders of equal length the rungs are, one after another; each has
    its own trials, and begins at its own `start` where those before it end without a pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: Annotated[int, Field(ge=1, le=20)] = 3
    cost: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    exact: bool = True
    rungs: tuple[Any, ...] = ()
    start: Annotated[int, Field(ge=0)] = 0
    ways: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _starts_on_a_rung(self) -> AutoOptions:
        if len(self.rungs) % self.ways:
            raise ValueError(f"ways: {len(self.rungs)} rungs are not {self.ways} ladders of equal length; give as many")
        if self.start >= max(1, len(self.rungs) // self.ways):
            raise ValueError(
                f"start: {self.start} is none of the {len(self.rungs) // self.ways} rungs (counted from 0); give rungs"
            )
        return self


@dataclass(frozen=True)
class Ladder:
    """Methods from the gentlest to the strongest; start: the first that is tried; why: the reason for these."""

    rungs: tuple[Any, ...]
    start: int
    why: str
    needs: frozenset[str] = frozenset()
    """Capabilities of a model for which the ladder was measured; empty for any."""
    examples: Literal["any", "class", "single", "client"] = "any"
    """The requests that it is for: those that name a class, single examples, or a client of a federation that leaves
    whole."""
    judged: Literal["any", "answers"] = "any"
    """The criteria that it can meet: any, or those that read of the forget set its answers in words alone."""
    options: AutoOptions = field(default_factory=AutoOptions)
    lines: tuple[str, ...] = ()
    """Of a repair: the way of each rung, empty for the first, which is the harmed model itself."""

    @property
    def name(self) -> str:
        """The method that it is of."""
        return "repair" if self.lines else NAME

    @property
    def ways(self) -> int:
        """How many ladders the rungs are, one after another: only a request's own can be several."""
        return self.options.ways if self.rungs == self.options.rungs else 1


def is_auto(spec: Any) -> bool:
    """Whether a request leaves the method to the tool."""
    return spec == NAME or (isinstance(spec, Mapping) and set(spec) == {NAME})


def options_of(spec: Any) -> AutoOptions:
    """The options of `auto` or `{auto: {...}}`. Raises BadInput."""
    given = None if spec == NAME else spec[NAME]
    if given is not None and not isinstance(given, Mapping):
        raise BadInput.of("method.auto", given, "is not a mapping of options", "write auto: {trials: 3}")
    return parse(AutoOptions, given or {}, "method.auto")


@functools.cache
def ladders(purpose: str) -> tuple[Ladder, ...]:
    """The ladders for a purpose, the best supported first."""
    text = (Path(__file__).parent / "auto.yaml").read_text(encoding="utf-8")
    entries = [entry for entry in yaml.safe_load(text) if purpose in entry["purposes"]]
    return tuple(
        Ladder(
            tuple(entry["rungs"]),
            int(entry["start"]),
            str(entry["why"]),
            frozenset(entry.get("needs", ())),
            entry.get("examples", "any"),
            entry.get("judged", "any"),
        )
        for entry in entries
    )
