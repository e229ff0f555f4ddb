"""A forget request, checked whole before anything starts."""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from expunge.core.booleans import read_as_numbers
from expunge.core.budget import Budget
from expunge.core.documents import CONFIG, TEXT, parse_json, parse_yaml, read_text
from expunge.core.errors import BadInput, did_you_mean, sentences
from expunge.core.path_fields import PathFields
from expunge.core.tables import plain_source

Source = str | list[str] | list[dict[str, Any]]
Count = Annotated[int, Field(gt=0)]
Quantile = Annotated[float, Field(gt=0, le=1)]
ReadPrecision = Literal["own", "bf16"]
TwoFolders = Annotated[list[str], Field(min_length=2, max_length=2)]
Model = typing.TypeVar("Model", bound=BaseModel)
SELECTORS = ("class", "random", "where", "client", "concept", "refusals")
GOLD_CHOICES = ("auto", "one", "none")
"""Values of `gold` that are not folders."""
A_SOURCE = "give a path, a hub name, builtin:WORLD/SPLIT, a list of these, or a list of examples"
WHOLE = {
    **dict.fromkeys(
        ("data", "retain", "holdout", "test", "neighbours", "general", "reference", "vocabulary"), A_SOURCE
    ),
    "forget": f"{A_SOURCE}, or a selector such as {{random: 0.1}}",
    "model": "give a folder, a hub name, builtin:authors, or {factory, arguments, weights}",
    "probes": "give a JSONL file of question, answer, kind and of, or further splits by name: {real_authors: f.jsonl}",
    "contain": "give none, auto, a whole number above 0 or a list of them",
    "held_out_rows": "give auto, or a whole number above 0",
    "gold": "give auto, one, none, the folder of a retrained model, or a list of two",
    "domains": "give a folder of prompts, builtin:instruct, or a list of these",
    "method": "give a name or the parts; `expunge list methods` has the names",
}
"""Field -> what may stand there, for fields of several forms."""
HARMLESS = (
    "purpose",
    "gold",
    "audit",
    "alignment",
    "judge",
    "contain",
    "redact",
    "turns",
    "answer_quantile",
    "read_precision",
    "clients_send",
    "held_out_rows",
    "seed",
    "budget",
)
"""Fields without which the rest of a request can still be checked."""


class Factory(BaseModel):
    """A network of the user's own: code, its arguments, and a safetensors state dict."""

    model_config = ConfigDict(extra="forbid")

    factory: str
    arguments: dict[str, Any] = {}
    weights: str


class Request(PathFields):
    """A request: a model, what it must forget, what it must keep, how, and how well.

    Every field is described in the documentation's request page; `Request.read` and
    `Request.parse` raise BadInput with every fault found.
    """

    PATHS = ("model", "out", "gold")

    model: str | Factory
    forget: Source | dict[str, Any]
    data: Source | None = None
    retain: Source | None = None
    holdout: Source | None = None
    test: Source | None = None
    neighbours: Source | None = None
    general: Source | None = None
    reference: Source | None = None
    probes: dict[str, Source] | str | list[dict[str, Any]] = {}
    """Further splits by name, or the user's own questions."""
    method: str | dict[str, Any] = "auto"
    """`auto` leaves the choice to the plan."""
    purpose: Literal["suppress", "erase"] = "suppress"
    budget: Budget = Budget()
    gold: str | TwoFolders = "auto"
    """auto, one, none, a folder, or two folders: of a gold model and of a second retraining."""
    audit: Literal["none", "standard", "deep"] = "none"
    alignment: Literal["none", "standard"] = "none"
    domains: str | list[str] | None = None
    judge: str = "rules"
    contain: Literal["none", "auto"] | Count | Annotated[list[Count], Field(min_length=1)] = "none"
    """A list: the first count is the run's own, the others are run beside it for the frontier."""
    accept: dict[str, Any] = {}
    redact: bool | None = None
    columns: dict[str, str] = {}
    turns: Literal["last", "all"] = "last"
    answer_quantile: Quantile = 1.0
    """Of the true answers' lengths, to which generated answers are limited, and a few tokens more."""
    read_precision: ReadPrecision = "own"
    """In which the figures of the splits are read: the model's own, or bfloat16."""
    clients_send: Literal["readouts", "sums"] = "readouts"
    """What the clients of a federation send of their rows: readouts of each example, or sums over them alone."""
    held_out_rows: Literal["auto"] | Count = "auto"
    """Most rows that evidence reads of each split which need not be forgotten and did not train."""
    trust_code: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    out: str

    @field_validator("forget")
    @classmethod
    def _selector(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            check_selector(value)
        elif not value:
            raise ValueError("is empty; give at least one example or a path")
        return value

    @field_validator("budget", "accept", "probes", "columns", mode="before")
    @classmethod
    def _heading(cls, value: Any) -> Any:
        return {} if value is None else value  # a heading whose lines are all commented out

    @property
    def redacted(self) -> bool:
        """Whether forget texts stay out of report, log and certificate."""
        return self.purpose == "erase" if self.redact is None else self.redact

    def to_dict(self) -> dict[str, Any]:
        """The fields that were set, as they were written, as plain data for request.yaml and digests."""
        values = self.model_dump(exclude_unset=True)
        written = {name: text for name, text in self._written.items() if name in values}
        return {**values, **written, "seed": self.seed, "redact": self.redacted}

    @classmethod
    def parse(cls, values: Any) -> Request:
        """A request from plain data. Raises BadInput."""
        if not isinstance(values, Mapping):
            raise BadInput.of("request", values, "is not a mapping", "write `field: value` lines")
        return parse(cls, values)

    @classmethod
    def salvage(cls, values: Any) -> Request | None:
        """The rest of a faulty request once unknown fields and faulty harmless ones are taken out.

        So that one pass can name the faults of the rest too; None where too little is left.
        """
        try:
            left = plain(values, "request")
            for path in _faulty(cls, left):
                if path[0] in cls.model_fields and path[0] not in HARMLESS:
                    return None
                _drop(left, path[: 2 if path[0] == "budget" else 1])
            return cls.model_validate(left)
        except (BadInput, ValidationError, LookupError, TypeError):
            return None

    @classmethod
    def read(cls, path: str | Path, sets: Mapping[str, Any] | None = None) -> Request:
        """A request from a YAML or JSON file, with `--set` values over it. Raises BadInput."""
        return cls.parse(read_config(path, "request", sets))


def check_selector(value: Mapping[str, Any], known: Sequence[str] = SELECTORS) -> None:
    """Check a selector under `forget`, of one of the known kinds. Raises ValueError."""
    if len(value) != 1:
        raise ValueError("is not a selector, which has one key; give one of " + ", ".join(known))
    ((kind, wanted),) = value.items()
    if kind not in known:
        raise ValueError(f"has an unknown selector; {did_you_mean(kind, known)}")
    if kind == "random" and (isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < 1):
        raise ValueError("holds no share; give random a number between 0 and 1")
    if kind == "where" and (not isinstance(wanted, Mapping) or not wanted):
        raise ValueError("holds no field: value pairs; write where: {author: 7}")
    if kind == "refusals" and (not isinstance(wanted, str) or not wanted.strip()):
        raise ValueError("names no domain; write refusals: cybersecurity")
    if kind == "concept" and not _words(wanted):
        raise ValueError("names no concept; write concept: red disc, or a list of such")
    if kind == "class" and not _classes(wanted):
        raise ValueError("holds no class; give its number, or a list of numbers")
    if kind == "client" and not _clients(wanted):
        raise ValueError("names no client; give text or a whole number, as the rows do, or a list of such")


def _words(wanted: Any) -> bool:
    several = wanted if isinstance(wanted, list) and wanted else [wanted]
    return all(isinstance(one, str) and bool(one.strip()) for one in several)


def _classes(wanted: Any) -> bool:
    several = wanted if isinstance(wanted, list) and wanted else [wanted]
    return all(isinstance(one, int) and not isinstance(one, bool) for one in several)


def _clients(wanted: Any) -> bool:
    several = wanted if isinstance(wanted, list) and wanted else [wanted]
    return all(isinstance(one, int | str) and not isinstance(one, bool) and one != "" for one in several)


def parse(model: type[Model], values: Mapping[str, Any], where: str = "", whole: str = "request") -> Model:
    """Plain data as a pydantic model. Raises BadInput, a sentence for each fault.

    where: what stands before the fields' names. whole: what the data as a whole are called.
    """
    try:
        given = plain(values, where or whole)
        read = model.model_validate(given)
        if faults := read_as_numbers(given, read, where):
            raise BadInput.all(faults)
        return read
    except ValidationError as error:
        faults, rest = [], []
        for fault in error.errors():
            path = [str(part) for part in fault["loc"] if str(part) != "Factory"]
            if fault["type"] == "extra_forbidden":
                field = ".".join([where, *path] if where else path)
                faults.append(
                    BadInput.of(
                        field,
                        path[-1],
                        "unknown field",
                        did_you_mean(path[-1], _fields_at(model, path[:-1])),
                    )
                )
            elif not (fault["type"] == "string_type" and path[0] == "model" and isinstance(fault["input"], Mapping)):
                rest.append(fault)  # a mapping under model is meant as a factory, never as a name
        raise BadInput.all([*faults, *sentences(rest, where, WHOLE)]) from None


def _faulty(model: type[BaseModel], values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        return list(dict.fromkeys(tuple(map(str, fault["loc"])) for fault in error.errors()))
    return []


def _drop(values: Any, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        values = values.get(name) if isinstance(values, dict) else None
    if isinstance(values, dict):
        values.pop(path[-1], None)


def plain(values: Any, field: str) -> dict[str, Any]:
    """A copy that holds JSON values alone: dates become texts, keys texts.

    Raises BadInput for bytes, for what contains itself, and for what is absurdly deep or large (YAML's
    aliases can make a small file grow without end).
    """
    seen = 0

    def copy(value: Any, depth: int) -> Any:
        nonlocal seen
        seen += 1
        if depth > 40 or seen > 2_000_000:
            raise BadInput.of(
                field, "", "is nested too deeply or too large", "write it out plainly; put data into files"
            )
        value = plain_source(value)
        if isinstance(value, Mapping):
            return {key if isinstance(key, str) else str(key): copy(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [copy(inner, depth + 1) for inner in value]
        if isinstance(value, datetime.date | datetime.time):
            return value.isoformat()
        if isinstance(value, bytes | bytearray):
            raise BadInput.of(field, value[:20], "are bytes, which no field takes", "write a text or a number")
        if isinstance(value, int) and value.bit_length() > 1000:
            raise BadInput.of(field, "", "holds a number of more than 300 digits", "write a smaller one")
        if isinstance(value, str):
            _utf8(value, field)
        return value

    return typing.cast(dict[str, Any], copy(values, 0))


def _utf8(text: str, field: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput.of(
            field,
            text[:80],
            f"holds half a character (U+{ord(text[error.start]):04X}), which no file can hold",
            "write the whole character",
        ) from None


def _fields_at(model: type[BaseModel], path: list[str]) -> set[str]:
    for name in path:
        inner = _models_in(model.model_fields[name].annotation) if name in model.model_fields else []
        if not inner:
            return set()
        model = inner[0]
    return set(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [m for part in typing.get_args(annotation) for m in _models_in(part)]
    return []


def read_config(path: str | Path, field: str, sets: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A YAML or JSON mapping from a file, with `key.sub=value` settings over it. Raises BadInput."""
    path = Path(path)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadInput.of(field, str(path), f"cannot be read ({why})", "give a YAML file in UTF-8") from None
    if not there:
        raise BadInput.of(field, str(path), "does not exist", "give the path of a YAML file")
    text = read_text(path, field, TEXT if path.suffix == ".json" else CONFIG, "give a YAML file in UTF-8")
    try:
        values = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except ValueError as error:
        fix = "fix that line" if " at line " in str(error) else "fix it"
        raise BadInput.of(field, str(path), str(error), fix) from None
    if not isinstance(values, dict):
        raise BadInput.of(field, str(path), "is not a mapping", "write `field: value` lines")
    for key, value in (sets or {}).items():
        put(values, key, value)
    return values


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets `key.sub` in nested mappings, as `--set` does. Raises BadInput."""
    parts = key.split(".")
    if parts[0] in FLAT and len(parts) > 2:  # the names inside have dots of their own
        parts = [parts[0], ".".join(parts[1:])]
    *path, last = parts
    for name in path:
        inner = values.get(name)
        if inner is None:
            inner = values[name] = {}
        elif not isinstance(inner, dict):
            raise BadInput.of("--set", key, f"goes into {name}, which is not a mapping", f"set {name} as a whole")
        values = inner
    values[last] = value


FLAT = ("accept", "columns", "probes")


def parse_sets(items: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """`key=value` strings of an option, the value read as YAML. Raises BadInput.

    A rule such as `>= 0.9 * before` is a text although YAML gives its first character a meaning.
    """
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip() or not all(key.split(".")):
            raise BadInput.of(option, item, "is not a setting", f"write {option} key=value")
        key, value = key.strip(), value.strip()
        if value[:1] in "<>=" and value:
            found[key] = value
            continue
        try:
            found[key] = parse_yaml(value)
        except ValueError:
            raise BadInput.of(option, item, "has a value that is not YAML", f"quote the value: {key}='...'") from None
    return found


def redact_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved request without what may name the forget set: examples given in it, and its selector's values."""
    shown = {name: value if name == "method" else _without_rows(value) for name, value in request.items()}
    for name in ("forget", "data"):
        value = shown.get(name)
        if isinstance(value, Mapping) and not set(value) <= {"random", "class", "refusals"}:
            shown[name] = "a selector, redacted"
    return shown


def _without_rows(value: Any) -> Any:
    """The same with every list of examples, at any depth, as their number."""
    if isinstance(value, list) and any(isinstance(row, Mapping) for row in value):
        return f"{len(value)} examples given in the request, redacted"
    if isinstance(value, Mapping):
        return {name: _without_rows(inner) for name, inner in value.items()}
    return value
