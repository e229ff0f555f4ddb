"""Defaults for a model of any family: what it need not write itself."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import digest
from expunge.models.family import family
from expunge.models.weights import device_of, fingerprint_of


class BaseModel:
    """One position per example, no text, no layers by name; a subclass adds `collate`, `forward` and `save`."""

    family: str
    module: nn.Module
    capabilities: frozenset[str] = frozenset({"nll"})
    coupled: bool = False
    together: int = 0
    stochastic: bool = False
    trusted: bool = False
    blocks: list[str] = []
    history: Path | None = None
    """The folder of what a federation's server kept of its rounds."""

    @property
    def read_with(self) -> dict[str, str]:
        """Name -> digest of all that readings follow from besides weights, settings and examples."""
        return {}

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput for the first example of a split that the model cannot take."""
        family(self.family).check_forms(split, rows)
        for i, row in enumerate(rows if self.stochastic else ()):
            draw = row.get("draw", 0)
            if not isinstance(draw, int) or isinstance(draw, bool):
                fix = "give whole numbers, or leave it out"
                raise BadInput.of(split, f"row {i + 1}", f"has the draw {str(draw)[:40]!r}", fix)

    def length(self, example: Example) -> int:
        """Positions of an example, with what stands before them."""
        return 1

    def down(self, i: int) -> str:
        """Path of block i's MLP down-projection. Raises BadInput where there is none."""
        raise BadInput.of("model", self.family, "has no MLP down-projection", "choose a method that does not edit MLPs")

    def generate(self, prompts: Sequence[Example], **settings: Any) -> list[str]:
        """Answers in plain text. Raises BadInput where the family writes none."""
        raise BadInput.of("model", self.family, "generates no text", "choose metrics and methods that need none")

    def fingerprint(self) -> dict[str, Any]:
        """The identity of what a readout depends on, besides the data: of a family of another package its code too."""
        code = {}
        if not (own := type(self).__module__).startswith("expunge."):
            with contextlib.suppress(OSError):  # typed into an interpreter, it has none
                code["code"] = digest(inspect.getsource(sys.modules[own]))
        return {
            "weights": fingerprint_of(self.module),
            "dtype": str(next(self.module.parameters()).dtype),
            "device": device_of(self.module).type,
            **code,
        }
