"""`train.yaml`: how a model is trained, so that it can be trained again without the forget set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from expunge.core.budget import Budget
from expunge.core.errors import BadInput
from expunge.core.path_fields import check_path
from expunge.core.request import Source, parse, read_config
from expunge.core.variables import expand_or_raise


class TrainConfig(BaseModel):
    """A training run: `expunge train train.yaml`.

    model: {architecture: llama, hidden_size, layers, heads, vocab_size}, a folder, a hub name, or
    {factory, arguments} for a classifier. vocabulary: texts that the tokenizer is trained on besides
    the data (never the model); a tokenizer that knows some texts better than others would make the
    others look surprising. Variables stay as they are written; what reads a field puts them in. exact: a scheme that
    can delete exactly, `{sisa: {shards: 4, slices: 4}}`. trainer: another trainer than the model's family has. Both
    are looked up, and their options checked, when the training begins.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | dict[str, Any]
    data: Source
    vocabulary: Source | None = None
    columns: dict[str, str] = {}
    epochs: Annotated[int, Field(gt=0, le=100_000)] = 10
    batch_size: Annotated[int, Field(gt=0, le=65_536)] = 16
    micro_batch_size: Annotated[int, Field(gt=0, le=65_536)] | Literal["auto"] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    exact: Any = None
    trainer: Any = None
    trust_code: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    out: str

    @field_validator("model", "data", "out")
    @classmethod
    def _check_place(cls, value: Any) -> Any:
        if not value:
            raise ValueError("is empty; give a name, a path or a mapping")
        if isinstance(value, str):
            check_path(value)
            expand_or_raise(value)
        return value

    @property
    def budget(self) -> Budget:
        return Budget(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            schedule="cosine",
            stop="none",
            micro_batch_size=self.micro_batch_size,
        )

    @classmethod
    def parse(cls, values: Any) -> TrainConfig:
        """From plain data. Raises BadInput."""
        if not isinstance(values, Mapping):
            raise BadInput.of("train", values, "is not a mapping", "write `field: value` lines")
        return parse(cls, values, whole="train")

    @classmethod
    def read(cls, path: str | Path, sets: dict[str, Any] | None = None) -> TrainConfig:
        """From a YAML or JSON file. Raises BadInput."""
        return cls.parse(read_config(path, "train", sets))
