"""One process or several under `accelerate launch`: sums over them, and who writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from accelerate import PartialState
from torch import Tensor, nn


def state() -> PartialState:
    """accelerate's view of the processes; on a CPU it forms a group only when told that there is no GPU."""
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=wanted or not torch.accelerator.is_available())


def world() -> int:
    """How many processes there are."""
    return int(state().num_processes)


def rank() -> int:
    """Which of them this is."""
    return int(state().process_index)


def main() -> bool:
    """Is this the process that writes."""
    return bool(state().is_main_process)


def device() -> torch.device:
    """Where this process computes."""
    return state().device


def barrier() -> None:
    """Waits for all processes."""
    state().wait_for_everyone()


def add(tensors: Sequence[Tensor]) -> None:
    """Sums each tensor over the processes, in place; nothing to do in one process."""
    if world() == 1:
        return
    for tensor in tensors:
        torch.distributed.all_reduce(tensor)


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sums `.grad` over the processes, in place: zeros for who has none where another one has some."""
    if world() == 1:
        return
    have = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=device())
    add([have])
    for parameter, count in zip(parameters, have.tolist(), strict=True):
        if count:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            add([parameter.grad])


def agree(value: float) -> float:
    """The first process's value, for decisions that all must take alike."""
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
