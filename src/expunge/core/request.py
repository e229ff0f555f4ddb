"""A forget request, checked whole before anything starts."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from expunge.core.budget import Budget
from expunge.core.errors import BadInput, did_you_mean

Source = str | list[str] | list[dict[str, Any]]
Model = typing.TypeVar("Model", bound=BaseModel)
SELECTORS = ("class", "random", "where", "client", "concept", "refusals")
LATER = {"client": "federated models", "concept": "image generators", "refusals": "refusal requests"}


class Factory(BaseModel):
    """A network of the user's own: code, its arguments, and a safetensors state dict."""

    model_config = ConfigDict(extra="forbid")

    factory: str
    arguments: dict[str, Any] = {}
    weights: str


class Request(BaseModel):
    """What to forget, of which model, what to keep, how, and how well.

    Every field is described in the documentation's request page; `Request.read` and
    `Request.parse` raise BadInput with every fault found.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | Factory
    forget: Source | dict[str, Any]
    data: Source | None = None
    retain: Source | None = None
    holdout: Source | None = None
    test: Source | None = None
    reference: Source | None = None
    probes: dict[str, Source] = {}
    method: str | dict[str, Any]
    purpose: Literal["suppress", "erase"] = "suppress"
    budget: Budget = Budget()
    gold: str = "auto"
    audit: Literal["none", "standard", "deep"] = "none"
    alignment: Literal["none", "standard"] = "none"
    contain: Literal["none", "auto"] | Annotated[int, Field(gt=0)] = "none"
    accept: dict[str, str] = {}
    redact: bool | None = None
    columns: dict[str, str] = {}
    trust_code: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    out: str

    @field_validator("forget")
    @classmethod
    def _selector(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            _check_selector(value)
        elif not value:
            raise ValueError("is empty; give at least one example")
        return value

    @field_validator("model", "out", "gold")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str) and (not value.strip() or "\0" in value):
            raise ValueError("is empty; give a name or a path")
        return value

    @property
    def redacted(self) -> bool:
        """Do forget texts stay out of report, log and certificate."""
        return self.purpose == "erase" if self.redact is None else self.redact

    def resolved(self) -> dict[str, Any]:
        """What was set, as plain data, for request.yaml and digests."""
        values = self.model_dump(exclude_unset=True)
        return {**values, "model": values["model"], "seed": self.seed, "redact": self.redacted}

    @classmethod
    def parse(cls, values: Any) -> Request:
        """A request from plain data. Raises BadInput."""
        if not isinstance(values, Mapping):
            raise BadInput.of("request", values, "is no mapping", "write `field: value` lines")
        return parse(cls, values)

    @classmethod
    def read(cls, path: str | Path, sets: Mapping[str, Any] | None = None) -> Request:
        """A request from a YAML or JSON file, with `--set` values over it. Raises BadInput."""
        return cls.parse(read_config(path, "request", sets))


def _check_selector(value: Mapping[str, Any]) -> None:
    if len(value) != 1:
        raise ValueError("a selector has one key; give one of " + ", ".join(SELECTORS))
    (kind, wanted), = value.items()
    if kind not in SELECTORS:
        raise ValueError(f"{kind!r} is no selector; {did_you_mean(str(kind), SELECTORS)}")
    if kind in LATER:
        raise ValueError(f"{kind!r} needs {LATER[kind]}, which this version cannot do yet; "
                         "select with class, random or where")  # fmt: skip
    if kind == "random" and (isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < 1):
        raise ValueError(f"random: {wanted!r} is no share; give a number between 0 and 1")
    if kind == "where" and (not isinstance(wanted, Mapping) or not wanted):
        raise ValueError("where needs field: value pairs; write where: {author: 7}")
    if kind == "class" and (isinstance(wanted, bool) or not isinstance(wanted, int | list)):
        raise ValueError(f"class: {wanted!r} is no class; give its number")


def parse(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Plain data as a pydantic model. Raises BadInput, a sentence for each fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BadInput.all(_sentences(model, error)) from None


def _sentences(model: type[BaseModel], error: ValidationError) -> list[BadInput]:
    found: dict[str, BadInput] = {}
    for fault in error.errors():
        path = [str(part) for part in fault["loc"] if _is_field(str(part))]
        field = ".".join(path) or "request"
        value = fault.get("input")
        if fault["type"] == "missing":
            found[field] = BadInput.of(field, "", "is missing", f"add {path[-1]}: ...")
        elif fault["type"] == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            found[field] = BadInput.of(field, path[-1], "is no field that we know", did_you_mean(path[-1], known))
        elif fault["type"] == "value_error":
            found[field] = BadInput.of(field, value, "cannot be used", str(fault["ctx"]["error"]))
        else:
            mend = fault["msg"][:1].lower() + fault["msg"][1:]
            if field in found and mend not in str(found[field]):
                mend = str(found[field]).rpartition("; ")[2].rstrip(".") + f", or: {mend}"
            found[field] = BadInput.of(field, value, "cannot be used", mend)
    return list(found.values())


def _is_field(part: str) -> bool:
    """Union branches appear in pydantic's locations as type names: they are no fields."""
    return not (part in {"str", "int", "float", "bool", "Factory", "function-after", "none"} or "[" in part)


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
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput.of(field, str(path), "does not exist", "give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error})", "give a YAML file in UTF-8") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise BadInput.of(field, str(path), f"is broken YAML{where}: {getattr(error, 'problem', error)}",
                          "mend that line") from None  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise BadInput.of(field, str(path), f"is broken YAML ({error})", "mend it") from None
    if not isinstance(values, dict):
        raise BadInput.of(field, str(path), "is no mapping", "write `field: value` lines")
    for key, value in (sets or {}).items():
        _put(values, key, value)
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for name in path:
        inner = values.get(name)
        if inner is None:
            inner = values[name] = {}
        elif not isinstance(inner, dict):
            raise BadInput.of("--set", key, f"goes into {name}, which is no mapping",
                              f"set {name} as a whole")  # fmt: skip
        values = inner
    values[last] = value


def parse_sets(items: list[str]) -> dict[str, Any]:
    """`key=value` strings of --set, the value read as YAML. Raises BadInput."""
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise BadInput.of("--set", item, "is no setting", "write --set key=value")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise BadInput.of("--set", item, "has a value that is no YAML", "quote it") from None
    return found
