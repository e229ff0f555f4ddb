"""A model folder's JSON description of itself, checked whole before any of it is used.

A folder may come from anyone. A file that holds a wrong type, an absurd number or a name outside the folder is refused
in one sentence; fields that nothing here reads are left alone, so that newer folders open.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from expunge.core.budget import Budget
from expunge.core.errors import BadInput, fix_of
from expunge.core.files import read_json
from expunge.core.request import Source

DEEPEST = 40
"""Lists and mappings within one another, as in a request."""


SHOWN = 5
"""Faults of one file that an error names."""


def _beside(name: str) -> str:
    path = PureWindowsPath(name)
    if name in ("", ".", "..") or path.name != name or path.drive or "\0" in name:
        raise ValueError("is not a name of a file in the folder itself; write the folder again")
    return name


def _below(name: str) -> str:
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\\" in name or "\0" in name:
        raise ValueError("is not a path inside the folder; write the folder again")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("is not a path inside the folder; write the folder again")
    return name


def pattern_of(template: str) -> str:
    """A template as it may stand in a manifest: "chat", or a text whose only place is {q}. Raises ValueError."""
    rest = template.replace("{q}", "")
    if template != "chat" and ("{q}" not in template or "{" in rest or "}" in rest):
        raise ValueError('is not a template; write "chat", or a text with {q} where the question goes')
    return template


Name = Annotated[str, AfterValidator(_beside)]
"""A file in the folder itself."""


Path_ = Annotated[str, AfterValidator(_below)]
"""A path below the folder."""


Seed = Annotated[int, Field(ge=0, lt=2**63)]


Count = Annotated[int, Field(ge=0, lt=2**63)]


Seconds = Annotated[float, Field(ge=0)]


class _File(BaseModel):
    """Known fields by their types, nothing converted; others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Factory(_File):
    """`classifier.json`, and a manifest's `model` where it is one: the class that builds the network."""

    factory: Annotated[str, Field(max_length=1000)]
    arguments: dict[str, Any] | None = None
    weights: str | None = None


class Machine(_File):
    """The machine that a training ran on. load: the machine's load average of the last minute."""

    device: Annotated[str, Field(max_length=200)] | None = None
    threads: Count | None = None
    load: Seconds | None = None


class Manifest(_File):
    """`expunge.json` beside a model: how it was trained, or what an unlearned one keeps of that.

    Whether the training was given leave to run code is not believed: the leave is the request's alone.
    """

    schema_: Annotated[int, Field(alias="schema")] = 1
    model: str | dict[str, Any] | None = None
    data: Source | None = None
    columns: dict[str, str] | None = None
    vocabulary: Source | None = None
    hashes: list[str] | None = None
    contents: list[str] | None = None
    homes: list[str] | None = None
    budget: Budget | None = None
    exact: dict[str, dict[str, Any]] | None = None
    trainer: dict[str, dict[str, Any]] | None = None
    federation: Account | None = None
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Seed | None = None
    template: Annotated[str, Field(max_length=10_000), AfterValidator(pattern_of)] | None = None
    steps: Count | None = None
    tokens: Count | None = None
    passes: dict[str, Count] | None = None
    seconds: Seconds | None = None
    machine: Machine | None = None
    python: str | None = None
    unlearned: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        if self.data is None:
            return self
        needed = {"model": self.model, "hashes": self.hashes, "budget": self.budget, "seed": self.seed}
        if missing := [name for name, value in needed.items() if value is None]:
            raise ValueError(f"names training data without {' and '.join(missing)}; train the model again")
        if not self.model:
            raise ValueError("names no model that the training began with; train the model again")
        return self


class Claim(_File):
    """A client's signature of its part of a round (methods/claims.py)."""

    examples: Count
    key: str
    signature: str


class Fact(_File):
    """A round as a federation's server notes it (methods/facts.py)."""

    round: Count
    updates: dict[str, str]
    moved: dict[str, float] = {}
    received: str = ""
    claims: dict[str, Claim] = {}
    model: str
    chain: str


class Account(_File):
    """`federation` of a manifest, as far as others read it: the rounds' facts, and each client's rows."""

    facts: list[Fact] = []
    examples: dict[str, Count] = {}
    left_out: dict[str, dict[str, str]] = {}


class Options(_File):
    """The options of an exact scheme, as far as a deletion reads them."""

    shards: Annotated[int, Field(ge=1, le=1000)] = 1
    slices: Annotated[int, Field(ge=1, le=1000)] = 1
    orderings: Annotated[int, Field(ge=1, le=1000)] = 1
    rank: Annotated[int, Field(ge=1, le=65_536)] = 1
    lora_alpha: Annotated[int, Field(ge=1, le=2**31)] = 1
    tokens: Annotated[int, Field(ge=1, le=65_536)] = 1
    by: str = "group"
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 1
    clients: Any = None
    local: Any = None
    way: Literal["shards", "votes", "scores"] = "scores"


OPTIONS = {
    "sisa": {"shards", "slices"},
    "fairsisa": {"shards", "slices", "way"},
    "federated_sisa": {"shards", "slices", "clients", "rounds", "local"},
    "s3t": {"shards", "slices", "orderings", "rank", "lora_alpha"},
    "pre_forgettable": {"tokens", "by"},
}
"""What a deletion reads of each scheme's options."""


class Odds(_File):
    """The fitted rates of a fair ensemble: [member or 1][cell][group]."""

    way: Literal["shards", "votes", "scores"]
    rates: Annotated[list[list[list[Annotated[float, Field(ge=0, le=1)]]]], Field(min_length=1)]
    edges: list[float]
    groups: dict[str, Count]
    seed: Seed
    said: str = ""

    @model_validator(mode="after")
    def _of_one_shape(self) -> Odds:
        cells = len(self.edges) + 1 if self.way == "scores" else 2
        groups = max(self.groups.values(), default=0) + 1
        if any(len(each) != cells or any(len(cell) != groups for cell in each) for each in self.rates):
            raise ValueError("holds rates that do not go with its cells and groups; train the model again")
        return self


class Shard(_File):
    """How many examples stand in each slice."""

    examples: list[Count]


class State(_File):
    """`ensemble.json`: the members that serve, and what the exact scheme keeps for deletions."""

    scheme: Annotated[str, Field(min_length=1)]
    options: Options = Options()
    seed: Seed
    stage: str = "train"
    budget: Budget = Budget()
    environment: dict[str, Any] | None = None
    requests: list[dict[str, Any]] = []
    members: Annotated[list[Path_], Field(min_length=1, max_length=100_000)]
    shards: list[Shard] | None = None
    orders: list[list[list[Count]]] | None = None
    active: list[list[Count]] | None = None
    layers: list[list[str]] | None = None
    base: str | None = None
    fair: Odds | None = None

    @model_validator(mode="after")
    def _together(self) -> State:
        if lacking := sorted(OPTIONS.get(self.scheme, set()) - self.options.model_fields_set):
            raise ValueError(f"has no options.{lacking[0]}; train the model again")
        if self.scheme == "pre_forgettable" and not self.base:
            raise ValueError("names no base for its soft prompts; train the model again")
        if self.fair and len(self.fair.rates) != (len(self.members) if self.fair.way == "shards" else 1):
            raise ValueError("holds rates for another number of members; train the model again")
        if self.scheme == "s3t" and not (self.orders and self.active and self.layers and self.base):
            raise ValueError("lacks the orders of its adapters; train the model again")
        orders, active, shards = self.orders or [], self.active or [], self.options.shards
        if any(sorted(order) != list(range(self.options.slices)) for shard in orders for order in shard):
            raise ValueError("holds an order that is none of its slices; train the model again")
        if (self.orders or self.active) and not list(map(len, orders)) == list(map(len, active)) == [
            self.options.orderings
        ] * shards:
            raise ValueError("holds orders for another number of shards; train the model again")
        if self.shards is not None and len(self.shards) != shards:
            raise ValueError("counts the examples of another number of shards; train the model again")
        return self


class Guard(_File):
    """One guard and its settings."""

    guard: str
    settings: dict[str, Any]


class Guards(_File):
    """`guard/guards.json`."""

    guards: Annotated[list[Guard], Field(max_length=100)]


class Adapter(_File):
    """`adapter_config.json`, as far as we read it before PEFT does."""

    peft_type: str | None = None
    base_model_name_or_path: str | None = None
    r: Annotated[int, Field(ge=0)] | None = None
    rank_pattern: dict[str, Annotated[int, Field(ge=0)]] | None = None


class Index(_File):
    """`*.index.json` beside sharded weights: which file holds which tensor."""

    weight_map: dict[str, Name]


def read(path: Path, kind: type[BaseModel], field: str, fix: str = "write the folder again") -> dict[str, Any]:
    """The JSON object in a file, as it stands there, once `kind` has accepted it. Raises BadInput.

    field: the request's field that named the folder, for errors.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput.of(field, str(path), f"cannot be read ({_first(error)})", fix) from None
    if not isinstance(found, dict):
        raise BadInput.of(field, str(path), "holds no JSON object", fix)
    if why := _odd(found):
        raise BadInput.of(field, str(path), why, fix)
    try:
        kind.model_validate(found)
    except ValidationError as error:
        raise BadInput.all(_fault(fault, path, field, fix) for fault in error.errors()[:SHOWN]) from None
    return found


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _odd(found: Any) -> str:
    """The first thing that no file of ours holds: nesting without end, and halves of characters."""
    level = [found]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii() and not _encodable(value):
                return "holds half a character, which no file can hold"
        if not below:
            return ""
        level = below
    return "is nested too deeply"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault(fault: Any, path: Path, field: str, fix: str) -> BadInput:
    """One sentence of a pydantic fault: the file, the field in it, its value and what should stand there."""
    name = ".".join(str(part) for part in fault["loc"] if not _branch(str(part)))[:100]
    told = fix_of(fault)
    if fault["type"] == "missing":
        return BadInput.of(field, str(path), f"has no {name}", fix)
    if fault["type"] == "value_error":
        why, _, told = told.partition("; ")
        said = f"{name or 'what it says'} ({_show(fault['input'])}) {why}" if name else why
        return BadInput.of(field, str(path), f"cannot be used: {said}", told or fix)
    return BadInput.of(field, str(path), f"cannot be used: {name} is {_show(fault['input'])}", told)


def _branch(part: str) -> bool:
    """Union branches stand in pydantic's locations as type names."""
    return part in ("str", "int", "float", "bool", "dict", "Budget") or "[" in part or part.startswith("function-")


def _show(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else f"a {type(value).__name__} of {len(value)}"
    return text if len(text) <= 60 else text[:57] + "..."
