"""Weights of a folder that its configuration does not account for: the network would be another than was saved."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from expunge.core.errors import BadInput
from expunge.models._folder import foreign


def check_left_over(module: Any, names: Iterable[str], base: str) -> None:
    """Raises BadInput where weights that transformers left unread belong to the network.

    These are layers beyond those that the configuration counts, and parts of layers that it builds without them, as
    biases. What belongs to nothing here, as buffers of earlier versions and a reward model's head, is left unread.
    """
    if not (names := sorted(names)):
        return
    shapes = {_pattern(name) for name, _ in module.named_parameters()}
    leaves = {path: part for path, part in module.named_modules() if getattr(part, "weight", None) is not None}
    for name in names:
        path = name.rpartition(".")[0]
        if _pattern(name) in shapes or path in leaves:
            why = f"holds weights that its configuration builds no place for ({name})"
            raise BadInput.of("model", base, why, "set config.json right, or save the model again")


def check_whole_numbers(folder: Path, base: str) -> None:
    """Raises BadInput where matrices are kept in 8-bit whole numbers and no configuration says by what to multiply."""
    for path in sorted(folder.glob("*.safetensors")):
        with foreign("model", base, "cannot be read", "save the model again"), safe_open(path, "pt") as file:
            packed = [name for name in file.keys() if name.endswith("weight") and _is_packed(file.get_slice(name))]
        if packed:
            why = f"keeps weights in whole numbers without a scale ({packed[0]})"
            raise BadInput.of("model", base, why, "save the model in floating point, or with its quantization_config")


def _is_packed(part: Any) -> bool:
    """Whether a slice of a safetensors file is a matrix of 8-bit whole numbers."""
    return part.get_dtype() in ("I8", "U8") and len(part.get_shape()) > 1


def _pattern(name: str) -> str:
    """A parameter's name whatever the number of its layer."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "N", name)
