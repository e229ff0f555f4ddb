"""One process or several (torchrun, `accelerate launch`): their shares of the work, sums, and which one writes.

All processes run the same program over the same request. What they do together (steps, readings) is cut into shares
and joined again, so that each knows the whole; what only one can do is done by the first, `alone`, and given to the
others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""Time that a process waits for the others, which may be attacking a model or asking a judge meanwhile."""
_alone: ContextVar[bool] = ContextVar("alone", default=False)


def state() -> PartialState:
    """accelerate's state of the processes. On CPUs it forms a group only with `cpu=True`."""
    wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    more = {"timeout": PATIENCE} if "RANK" in os.environ else {}
    return PartialState(cpu=wanted or not torch.accelerator.is_available(), **more)


def process_count() -> int:
    """The number of processes that were started."""
    return int(state().num_processes)


def world() -> int:
    """The number of processes that work together here: one inside `alone`."""
    return 1 if _alone.get() else process_count()


def rank() -> int:
    """The index of this process among those that work together."""
    return 0 if _alone.get() else int(state().process_index)


def main() -> bool:
    """True in the process that writes files and output."""
    return _alone.get() or bool(state().is_main_process)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works as if it were the only one: nothing is shared, summed or waited for."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def from_first(make: Callable[[], T]) -> T:
    """Let the first process make a value, alone, and give it to all; its error is raised in all of them."""
    if world() == 1:
        return make()
    box: list[tuple[T | None, Exception | None]] = [(None, None)]
    if main():
        with alone():
            try:
                box = [(make(), None)]
            except Exception as error:
                box = [(None, error)]
    broadcast_object_list(box)
    made, failure = box[0]
    if failure is not None:
        raise failure
    return made  # type: ignore[return-value]


def gather(value: T) -> list[T]:
    """Every process's value, in the order of the processes, in all of them."""
    return [value] if world() == 1 else list(gather_object([value]))


def share(count: int) -> list[int]:
    """The places of this process's share of so many rows; `join_shares` puts the shares together again."""
    return list(range(rank(), count, world()))


def join_shares(shares: Sequence[Sequence[T]]) -> list[T]:
    """The rows of all processes' shares (`gather`), in their own order."""
    rows: list[T | None] = [None] * sum(map(len, shares))
    for first, part in enumerate(shares):
        rows[first :: len(shares)] = part
    return rows  # type: ignore[return-value]


def device() -> torch.device:
    """The device of this process."""
    return state().device


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        state().wait_for_everyone()


def add(tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over the processes, in place."""
    if world() == 1:
        return
    for tensor in tensors:
        torch.distributed.all_reduce(tensor)


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum `.grad` over the processes, in place; a missing gradient is zero where another process has one.

    Those of parameters that are split over the processes are summed already.
    """
    if world() == 1:
        return
    parameters = [p for p in parameters if not hasattr(p, "full_tensor")]
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


def sum_over_processes(figures: Mapping[str, float]) -> dict[str, float]:
    """Name -> its sum over the processes."""
    names = sorted(figures)
    values = torch.tensor([figures[name] for name in names], dtype=torch.float64)
    if world() > 1:
        values = values.to(device())
        add([values])
    return dict(zip(names, values.tolist(), strict=True))
