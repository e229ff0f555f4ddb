"""One process or several (`accelerate launch`): their number, sums over them, and which one writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from accelerate import PartialState
from torch import Tensor, nn


def state() -> PartialState:
    """accelerate's state of the processes. On CPUs it forms a group only with `cpu=True`."""
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=wanted or not torch.accelerator.is_available())


def world() -> int:
    """The number of processes."""
    return int(state().num_processes)


def rank() -> int:
    """The index of this process."""
    return int(state().process_index)


def main() -> bool:
    """True in the process that writes files and output."""
    return bool(state().is_main_process)


def device() -> torch.device:
    """The device of this process."""
    return state().device


def barrier() -> None:
    """Wait for all processes."""
    state().wait_for_everyone()


def add(tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over the processes, in place."""
    if world() == 1:
        return
    for tensor in tensors:
        torch.distributed.all_reduce(tensor)


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum `.grad` over the processes, in place; a missing gradient is zero where another process has one."""
    if world() == 1:
        return
    have = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=device())
    add([have])
    for parameter, count in zip(parameters, have.tolist(), strict=True):
        if count:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            add([parameter.grad])


def agree(value: float) -> float:
    """The first process's value, for decisions on which all must agree."""
    if world() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device="cpu" if device().type == "cpu" else device())
    torch.distributed.broadcast(tensor, 0)
    return float(tensor)


def gathered(figures: Mapping[str, float]) -> dict[str, float]:
    """Name -> its sum over the processes."""
    names = sorted(figures)
    values = torch.tensor([figures[name] for name in names], dtype=torch.float64)
    if world() > 1:
        values = values.to(device())
        add([values])
    return dict(zip(names, values.tolist(), strict=True))
