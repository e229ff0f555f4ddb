"""Mixed precision: in which dtype a forward computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from expunge.core import processes


@contextlib.contextmanager
def autocast(precision: str | None) -> Iterator[None]:
    """Computes in bf16 where the budget asks for it, and with `auto` on CUDA."""
    device = processes.device().type
    if precision == "bf16" or (precision == "auto" and device == "cuda"):
        with torch.autocast(device, dtype=torch.bfloat16):
            yield
    else:
        yield
