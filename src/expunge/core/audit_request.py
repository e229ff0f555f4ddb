"""The requests of the verbs that measure models and change none: audit, exposure and provenance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from expunge.core.documents import parse_yaml
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.path_fields import PathFields
from expunge.core.request import (
    GOLD_CHOICES,
    Count,
    Quantile,
    ReadPrecision,
    Source,
    TwoFolders,
    check_selector,
    parse,
    plain,
)

Folders = list[str]
"""Model folders, or patterns such as `runs/*/model`."""
SELECTORS = ("class", "random", "where", "client", "concept")
"""Selectors over data that a measurement takes."""


class MeasuringRequest(PathFields):
    """The fields that all of them have, and how they are read."""

    PATHS: ClassVar[tuple[str, ...]] = ("model", "before", "gold", "marks", "out")

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    out: str | None = None

    def as_written(self, *names: str) -> dict[str, Any]:
        """These fields as they were written, for the evidence."""
        return {name: self._written.get(name, getattr(self, name)) for name in names}

    @classmethod
    def parse(cls, values: Any) -> Self:
        """A request from plain data. Raises BadInput with every fault found."""
        request, errors = cls.of(values, {})
        if request is None or errors:
            raise BadInput.all(errors)
        return request

    @classmethod
    def of(cls, request: Any, fields: Mapping[str, Any]) -> tuple[Self | None, list[BadInput]]:
        """(the request, its faults): of a request, of a mapping, or of a model's name, each with fields over it.

        A faulty request comes back without its faulty fields, so that one pass can name the faults of the rest too;
        None where a field without a default is faulty.
        """
        if isinstance(request, cls):
            if not fields:
                return request, []
            request = request.model_dump(exclude_unset=True) | request._written
        if isinstance(request, str | os.PathLike):
            request = {"model": os.fspath(request)}
        elif request is None:
            request = {}
        if not isinstance(request, Mapping):
            return None, [BadInput.of("request", request, "is not a mapping", "write `field: value` lines")]
        values = {name: _as_text(value) for name, value in {**request, **fields}.items()}
        try:
            return parse(cls, values), []
        except BadInput as error:
            return cls._salvage(values), [error]

    @classmethod
    def _salvage(cls, values: Mapping[str, Any]) -> Self | None:
        """The request without its faulty fields; None where it needs one of them."""
        try:
            left = plain(values, "request")
        except BadInput:
            return None
        for _ in range(2):  # as it is, then without the faulty fields
            try:
                return cls.model_validate(left)
            except ValidationError as error:
                for fault in error.errors():
                    left.pop(str(fault["loc"][0]), None)
        return None


def _as_text(value: Any) -> Any:
    """A path object, or a list of such, as text."""
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class OfExamples(MeasuringRequest):
    """A measurement of what should be forgotten: examples, or a selector of some of `data`."""

    forget: Source | dict[str, Any]
    data: Source | None = None

    @field_validator("forget", mode="before")
    @classmethod
    def _check_forget(cls, value: Any) -> Any:
        """A selector is a mapping; the command line writes it as a text, `{client: 7}`."""
        if isinstance(value, str) and value.startswith("{"):
            value = parse_yaml(value)
        if isinstance(value, Mapping):
            check_selector(value, SELECTORS)
        return value


class AuditRequest(OfExamples):
    """A model to audit, whoever changed it, and the data and models to compare it with.

    forget: examples, or a selector of some of `data`, such as {client: 7} of a federation; the rest of data is then
    retain, where none is given.
    before: the model before the change. gold: auto, one, none, the folder of a model retrained without the forget set,
    or two such folders; auto takes a cached one, or retrains where the training manifest allows it and it is cheap.
    neighbours, general: near neighbours of the forget set, and general text, on which utility is measured apart.
    probes: questions of your own (`question`, `answer`, `kind`, `of`). turns: whether the last answer of a conversation
    counts, or all. answer_quantile: of the true answers' lengths, to which generated answers are limited, and a few
    tokens more. read_precision: in which the splits are read: the model's own, or bf16. held_out_rows: most rows that
    are read of each split which need not be forgotten. level: the attacks on the model and on gold. alignment:
    "standard" also puts the prompts of `domains` (default: the embedded pack) to the models, judged by `judge`.
    clients_send: what the clients of a federation send of their rows: readouts, or sums alone. out: a folder for
    evidence.json and report.html.
    """

    model: str
    retain: Source | None = None
    holdout: Source | None = None
    test: Source | None = None
    neighbours: Source | None = None
    general: Source | None = None
    probes: dict[str, Source] | str | list[dict[str, Any]] | None = None
    before: str | None = None
    gold: str | TwoFolders = "auto"
    accept: dict[str, Any] = {}
    purpose: Literal["suppress", "erase"] = "suppress"
    redact: bool = False
    turns: Literal["last", "all"] = "last"
    answer_quantile: Quantile = 1.0
    read_precision: ReadPrecision = "own"
    held_out_rows: Literal["auto"] | Count = "auto"
    level: Literal["none", "standard", "deep"] = "standard"
    alignment: Literal["none", "standard"] = "none"
    domains: str | list[str] | None = None
    judge: str = "rules"
    clients_send: Literal["readouts", "sums"] = "readouts"
    trust_code: bool = False

    @field_validator("accept", mode="before")
    @classmethod
    def _heading(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("gold", mode="before")
    @classmethod
    def _no_gold(cls, value: Any) -> Any:
        return "none" if value is None else value

    @field_validator("purpose", "turns", "level", "alignment", "clients_send", mode="before")
    @classmethod
    def _check_choice(cls, value: Any, info: ValidationInfo) -> Any:
        choices = get_args(cls.model_fields[str(info.field_name)].annotation)
        if value not in choices:
            raise ValueError(f"cannot be used; {did_you_mean(value, choices)}")
        return value

    @property
    def redacted(self) -> bool:
        """Whether texts of the forget set stay out of evidence and report."""
        return self.redact or self.purpose == "erase"

    @property
    def sources(self) -> dict[str, str]:
        """Role -> model, in the order in which they are read.

        Attacks use what the model before the change knew, and gold: the changed model comes last.
        """
        roles = {"before": self.before, **self.golds, "after": self.model}
        return {role: source for role, source in roles.items() if source is not None}

    @property
    def golds(self) -> dict[str, str]:
        """Role -> gold model that was given."""
        if isinstance(self.gold, str):
            return {} if self.gold in GOLD_CHOICES else {"gold": self.gold}
        return dict(zip(("gold", "second_gold"), self.gold, strict=True))


class ExposureRequest(OfExamples):
    """Models that unlearned and models that were retrained, to compare as distributions.

    floor: a second set of retrained models, which shares none with `gold`; by default the golds are halved. course: the
    checkpoints of one training on the forget set, in order; needs a holdout. out: a folder for evidence.json and
    report.html.
    """

    PATHS = ("out",)  # patterns of folders are expanded one by one

    unlearned: Folders
    gold: Folders
    floor: Folders = []
    before: Folders = []
    retain: Source | None = None
    holdout: Source | None = None
    course: Folders = []
    redact: bool = False


class ProvenanceRequest(MeasuringRequest):
    """A model to test for having been trained on data, by marks, or by the data themselves.

    marks: the folder that `mark` wrote. data: rows that may have been trained on; name and split: what the data set is
    called, for guided completion; holdout: rows like data that were never trained on. before, gold: the model before
    unlearning, and one that never saw the data. out: a folder for evidence.json.
    """

    model: str
    marks: str | None = None
    data: Source | None = None
    holdout: Source | None = None
    name: str | None = None
    split: str = "train"
    before: str | None = None
    gold: str | None = None
    trust_code: bool = False

    @property
    def sources(self) -> dict[str, str]:
        """Role -> model."""
        roles = {"before": self.before, "after": self.model, "gold": self.gold}
        return {role: source for role, source in roles.items() if source}
