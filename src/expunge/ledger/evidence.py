"""evidence.json as a type: the one shape that run, audit, bench, exposure and provenance write.

Schema 2 is written. Schema 1 is read too: its scores have no `groups`, and the lines of its verdict no `word`. A field
that a file does not hold stays out when it is written again, so that `to_json` gives back the file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictFloat,
    StrictInt,
    ValidationError,
    model_validator,
)

SCHEMA = 2
SECOND_GOLD = "second_gold"
"""The role of a second retraining, of another seed: its distance to gold is the noise of all comparisons with gold."""
MAX_DEPTH = 40
"""Levels of lists and mappings in an evidence.json at most."""


def _in_range(number: float) -> float:
    """Refuse NaN, infinities, and whole numbers that no float can hold."""
    if not abs(number) <= sys.float_info.max:
        raise ValueError("is not a finite number")
    return number


Number = Annotated[StrictInt | StrictFloat, AfterValidator(_in_range)]
"""A finite number; a whole one stays whole."""
Object = dict[str, JsonValue]
"""A JSON object whose keys depend on the method, the data or the page that draws it."""


class Record(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def parse(cls, values: Any) -> Self:
        """The record that a JSON value holds. Raises ValueError with the place of the first fault, in one line."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"])) or "record"
            raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


class ScoreRecord(Record):
    """One figure of one model, without the values of single examples."""

    name: str
    side: str
    split: str
    subject: str
    """The role of the model: before, after, gold, second_gold, or another that the verb names."""
    value: Number | None
    low: Number | None
    high: Number | None
    """The ends of the 95 % interval."""
    n: StrictInt
    groups: StrictInt | None = None
    """Groups by which the interval is clustered; None where each example counts by itself."""
    unit: str
    better: str
    status: Literal["measured", "not measured"]
    why: str
    """Why it is not measured, or a remark."""


class CheckRecord(Record):
    """One acceptance criterion, or one that the purpose implies, and how it came out."""

    rule: str
    passed: bool
    word: Literal["shown", "refuted", "open"] | None = None
    value: Number | None
    bound: Number | list[Number] | None
    why: str
    flagged: bool
    implied: bool
    warns: bool
    needed: StrictInt | None = None
    """Examples that would show an open line, if its figure stayed; of a membership attack, a side."""


class VerdictRecord(Record):
    """The outcome of all checks; None where there was nothing to meet."""

    passed: bool | None
    lines: list[CheckRecord]


class Cost(BaseModel):
    """Tokens and passes first, which compare, then time and memory. Retrainings and attacks add fields of their own."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    tokens: StrictInt | None = None
    """Tokens that the method trained on; under `stop: gold` with those of gold."""
    passes: dict[str, StrictInt] = {}
    """Positions of the method's forward and backward passes; under `stop: gold` with those of gold."""
    forward_passes: dict[str, Number] = {}
    """Role and split -> passes over the split."""
    unlearn_seconds: Number | None = None
    """Time of the method; under `stop: gold` with that of training gold."""
    gold_seconds: Number | None = None
    run_seconds: Number | None = None
    audit_seconds: Number | None = None
    peak_memory_bytes: StrictInt | None = None
    slowdown: Number | None = None
    """Time of a forward pass behind the guards, over that of the model without them."""
    stages: dict[str, dict[str, Number]] = {}
    """Stage -> seconds, cpu_seconds, utilisation (CPU seconds over time and cores) and peak_memory_bytes."""
    steps_retrained: StrictInt | None = None
    steps_total: StrictInt | None = None


class OverModels(Record):
    """The parts of an exposure report that no single score holds."""

    models: dict[str, StrictInt]
    klom: dict[str, dict[str, list[Number | None]]]
    course: list[dict[str, Number]]
    examples: list[Object]


class Evidence(Record):
    """The figures, the verdict and the cost of one piece of work, as evidence.json holds them."""

    schema_: Literal[1, 2] = Field(alias="schema")
    title: str = ""
    request: Object
    method: str = ""
    described: str | Object = ""
    scores: list[ScoreRecord]
    cost: Cost
    environment: Object
    inputs: Object = {}
    """Digests of the models and files that the work started from."""
    verdict: VerdictRecord
    trials: list[Object] = []
    """Of `method: auto`: the strengths that were tried, in order, and the lines that each failed."""
    curve: list[Object] = []
    stop: Object = {}
    notes: list[str]
    conclusions: list[str] = []
    method_notes: Object = {}
    guarantee: Object = {}
    """Of certified removal: epsilon, delta, the gradient left, its bound, what it covers and how many weights not."""
    yields: str = ""
    splits: dict[str, StrictInt]
    """Split -> its number of examples."""
    distributions: dict[str, dict[str, list[Number | None]]] = {}
    """Split -> role -> NLL per token of each example, None where it is not finite; on disk in examples.parquet."""
    examples: dict[str, list[Object]] = {}
    """Split -> the examples that the report may show; on disk in examples.parquet."""
    alignment: Object = {}
    attack_curves: dict[str, dict[str, list[Object]]] = {}
    attack_texts: dict[str, list[Object]] = {}
    headline: dict[str, list[str]] = {}
    """Side -> the scores that represent it, by the model's family."""
    rocs: dict[str, dict[str, list[list[Number]]]] = {}
    confusions: Object = {}
    """Of a classifier: role -> counts of unseen rows by label and prediction; `forgotten`: labels of forget alone."""
    drawings: list[Object] = []
    """Of a generator: label, and role -> picture (a data URI), plain and attacked, from the same noise."""
    feature_map: dict[str, dict[str, list[list[Number]]]] = {}
    """Of a classifier: role -> split -> points in the plane of its features' main directions."""
    clients: Object = {}
    """Of a federation: what the clients sent, and of each the rows that it read, by split, and its own figures."""
    rounds: Object = {}
    """Of a federation: its training's rounds and a departure's, each with its facts, and faults of what was kept."""
    over_models: OverModels | None = None
    caches: list[str] = []
    """Of earlier versions alone: the cache entries of the run, which salt.json holds today."""

    @model_validator(mode="before")
    @classmethod
    def _check_numbers(cls, values: Any) -> Any:
        """Refuse NaN wherever it is: JSON has none, and the free-form parts would take it."""
        _check_json(values)
        return values

    @model_validator(mode="after")
    def _check_schema(self) -> Evidence:
        newer = self.schema_ == SCHEMA
        word = "lacks" if newer else "holds"
        for score in self.scores:
            if ("groups" in score.model_fields_set) is not newer:
                raise ValueError(f"the score {score.name} {word} groups, against schema {self.schema_}")
        for line in self.verdict.lines:
            if ("word" in line.model_fields_set) is not newer:
                raise ValueError(f"the line {line.rule!r} {word} a word, against schema {self.schema_}")
        return self

    def to_json(self) -> dict[str, Any]:
        """The JSON value of the file."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def _check_json(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("is nested too deeply")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _in_range(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            _check_json(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json(item, depth + 1)
