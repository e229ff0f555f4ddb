"""Weights of a folder that its configuration builds no place for: the network would be another than was saved."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from expunge.core.errors import BadInput


def check_left_over(module: Any, names: Iterable[str], base: str) -> None:
    """Raises BadInput where weights that transformers left unread belong to the network.

    These are layers beyond those that the configuration counts, and parts of layers that it builds without them, as
    biases. What belongs to nothing here, as buffers of earlier versions and a reward model's head, is left unread.
    """
    shapes = {_pattern(name) for name, _ in module.named_parameters()}
    leaves = {path: part for path, part in module.named_modules() if getattr(part, "weight", None) is not None}
    for name in sorted(names):
        path = name.rpartition(".")[0]
        if _pattern(name) in shapes or path in leaves:
            why = f"holds weights that its configuration builds no place for ({name})"
            raise BadInput.of("model", base, why, "set config.json right, or save the model again")


def _pattern(name: str) -> str:
    """A parameter's name whatever the number of its layer."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "N", name)
