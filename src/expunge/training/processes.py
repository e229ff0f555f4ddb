"""One process or several under `accelerate launch`: sums over them, and who writes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import PartialState
from torch import Tensor


def state() -> PartialState:
    return PartialState()


def world() -> int:
    return int(state().num_processes)


def rank() -> int:
    return int(state().process_index)


def main() -> bool:
    return bool(state().is_main_process)


def device() -> torch.device:
    return state().device


def barrier() -> None:
    state().wait_for_everyone()


def add(tensors: Sequence[Tensor]) -> None:
    """Sums each tensor over the processes, in place; nothing to do in one process."""
    if world() == 1:
        return
    for tensor in tensors:
        torch.distributed.all_reduce(tensor)


def agree(value: float) -> float:
    """The first process's value, for decisions that all must take alike."""
    if world() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device="cpu" if device().type == "cpu" else device())
    torch.distributed.broadcast(tensor, 0)
    return float(tensor)
