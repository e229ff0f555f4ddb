"""Fields of requests that are paths: checked, expanded, and kept as they were written."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationInfo, field_validator, model_validator

from expunge.core.errors import UNSAFE
from expunge.core.variables import expand_or_raise


def check_path(text: str) -> None:
    """Check that this can be a name or a path. Raises ValueError."""
    if not text.strip():
        raise ValueError("is empty; give a name or a path")
    if "\0" in text:
        raise ValueError("holds a NUL character; give a name or a path")
    if odd := UNSAFE.search(text):
        raise ValueError(f"holds an invisible character (U+{ord(odd[0]):04X}); give a name or a path without")


class PathFields(BaseModel):
    """A request whose fields named by `PATHS` are paths where they are texts, or lists of them.

    The fields hold the expanded paths; `_written` holds the texts, for request.yaml, evidence and digests.
    """

    model_config = ConfigDict(extra="forbid")

    PATHS: ClassVar[tuple[str, ...]] = ()
    _written: dict[str, str | list[str]] = PrivateAttr(default_factory=dict)

    @field_validator("*")
    @classmethod
    def _check_path(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name in cls.PATHS:
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    check_path(text)
                    expand_or_raise(text)
        return value

    @model_validator(mode="after")
    def _expand_paths(self) -> Self:
        for name in self.PATHS:
            value = self.__dict__.get(name)
            if isinstance(value, str):
                self._written[name] = value
                self.__dict__[name] = expand_or_raise(value)
            elif isinstance(value, list) and all(isinstance(text, str) for text in value):
                self._written[name] = value
                self.__dict__[name] = [expand_or_raise(text) for text in value]
        return self
