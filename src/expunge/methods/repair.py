"""`method: {repair: {model: FOLDER, ...}}`: the ways in which a model that was harmed is repaired, as a ladder.

The method's change is the one that somebody made: from the original, the request's `model`, to the harmed one. Each way
takes a part of it back, its rungs from the most of the change to the least. The first rung is the harmed model itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from expunge.core.contracts import Model
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.request import parse
from expunge.methods._other_model import check_start
from expunge.methods.auto import AutoOptions, Ladder

NAME = "repair"
WAYS: dict[str, tuple[dict[str, float], ...]] = {
    "wise_ft": ({"share": 0.8}, {"share": 0.6}, {"share": 0.4}, {"share": 0.2}),
    "safe_lora": ({"threshold": 0.35}, {"threshold": 1.0}),
    "lox": ({"alpha": 0.25}, {"alpha": 0.5}, {"alpha": 1.0}),
    "resta": ({"gamma": 0.25}, {"gamma": 0.5}, {"gamma": 1.0}),
}
"""Wrapper -> the options of its rungs."""
BY_TRAINING = ("safe_lora", "lox", "resta")
"""The ways that compare with the weights which the original's training began with."""


class RepairOptions(BaseModel):
    """Options of a repair.

    model: the harmed model. start: the model that the original was trained from; by default its manifest says. ways:
    wrappers, tried in this order. trials: models judged at most, the harmed one included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    start: str | None = None
    ways: Annotated[list[str], Field(min_length=1)] = list(WAYS)
    trials: Annotated[int, Field(ge=1, le=20)] = 20

    @field_validator("ways")
    @classmethod
    def _known_ways(cls, ways: list[str]) -> list[str]:
        for way in ways:
            if way not in WAYS:
                raise ValueError(f"holds {way!r}, an unknown way; {did_you_mean(way, WAYS)}")
        return ways


def is_repair(spec: Any) -> bool:
    """Whether a request's method is a repair."""
    return isinstance(spec, Mapping) and set(spec) == {NAME}


def options_of(spec: Mapping[str, Any]) -> RepairOptions:
    """The options of `{repair: {...}}`. Raises BadInput."""
    if not isinstance(spec[NAME], Mapping):
        raise BadInput.of(f"method.{NAME}", spec[NAME], "is not a mapping of options", "write repair: {model: FOLDER}")
    return parse(RepairOptions, spec[NAME], f"method.{NAME}")


def repair_ladder(spec: Any, original: Model, manifest: Mapping[str, Any] | None) -> Ladder:
    """The rungs of `{repair: {...}}`. manifest: of the original. Raises BadInput."""
    options = options_of(spec)
    start_known = _is_start_known(options, original, manifest)
    ways = [way for way in options.ways if start_known or way not in BY_TRAINING]
    if not ways:
        why = "compare with the model that the original was trained from, which no manifest names"
        raise BadInput.of(f"method.{NAME}.ways", options.ways, why, "give start, or wise_ft among the ways")
    given = {"model": options.model}
    rungs: list[Any] = [given]
    lines = [""]
    for way in ways:
        start = {"start": options.start} if options.start and way in BY_TRAINING else {}
        rungs += [{way: {**strength, **start, "inner": given}} for strength in WAYS[way]]
        lines += [way] * len(WAYS[way])
    left = ", ".join(way for way in options.ways if way not in ways)
    why = f"of the change from the original to {options.model} a part is taken back ({', '.join(ways)})"
    if left:
        why += f"; without the model that the original was trained from there is no {left}"
    limits = AutoOptions(trials=options.trials, exact=False)
    return Ladder(tuple(rungs), 0, why, options=limits, lines=tuple(lines))


def _is_start_known(options: RepairOptions, original: Model, manifest: Mapping[str, Any] | None) -> bool:
    """Whether the weights that the original's training began with can be had. Raises BadInput for a faulty `start`."""
    try:
        check_start(options.start, original, manifest, f"method.{NAME}.start")
    except BadInput:
        if options.start is not None:
            raise
        return False
    return True


def words_of(rung: Mapping[str, Any]) -> str:
    """A rung in words: `wise_ft, share 0.8`."""
    return ", ".join(_words(rung)) or "the model as it was given"


def _words(rung: Mapping[str, Any]) -> Iterator[str]:
    for way, options in rung.items():
        if isinstance(options, Mapping):
            yield way
            yield from (f"{name} {value:g}" for name, value in options.items() if isinstance(value, float))
