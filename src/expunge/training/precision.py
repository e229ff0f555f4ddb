"""Mixed precision: in which dtype a training forward computes. Weights and the optimiser's moments stay in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch

from expunge.core import processes
from expunge.core.request import ReadPrecision

Precision = Literal["fp32", "bf16"]
LARGE = 20_000_000
"""Parameters from which `auto` takes bfloat16 on a CPU: below, little is gained, and figures would differ between
machines for nothing."""


def precision_of(given: str | None, parameters: int) -> Precision:
    """The precision that a budget's `precision` stands for.

    `auto` is bfloat16 on CUDA, and on CPUs that multiply it in hardware for models of LARGE parameters or more: others
    emulate it, thirty times slower than float32.
    """
    if given in ("fp32", "bf16"):
        return "bf16" if given == "bf16" else "fp32"
    device = processes.device().type
    if given == "auto" and (device == "cuda" or (device == "cpu" and parameters >= LARGE and cpu_multiplies_bf16())):
        return "bf16"
    return "fp32"


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 (AVX512-BF16, AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def precision_note(precision: Precision) -> str:
    """A sentence on what trains in bfloat16; empty for float32."""
    if precision == "fp32":
        return ""
    return (
        "Trains in bfloat16, with weights and moments in float32; figures are read in the model's own precision, "
        "unless `read_precision` asks for less."
    )


def read_notes(read_precision: ReadPrecision) -> list[str]:
    """A sentence on figures that are read in bfloat16; none on those of the model's own precision."""
    if read_precision == "own":
        return []
    return [
        "The splits are read, and answers generated, in bfloat16 (`read_precision`), of all models alike; attacks, and "
        "what stops a run, are read in the model's own precision."
    ]


def lowered_to() -> torch.dtype | None:
    """The dtype that `autocast` computes products in now; None outside of it."""
    device = processes.device().type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


@contextlib.contextmanager
def autocast(precision: Precision | ReadPrecision) -> Iterator[None]:
    """Computes forwards in this precision; `own`, and fp32, in that of the model's weights."""
    if precision == "bf16":
        with torch.autocast(processes.device().type, dtype=torch.bfloat16):
            yield
    else:
        yield
