"""The numbers that a network reads: steps along the loss's slope, and other numbers in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.core.contracts import Batch, Example, Model
from expunge.core.errors import BadInput
from expunge.models.passes import batches, outputs

WHY = "changes the numbers that a network reads, and these examples have none"
FIX = "choose another method, or give images or tables"


def numeric(batch: Batch, method: str) -> str:
    """The name of a batch's one input of floating-point numbers. Raises BadInput where there is not just one."""
    names = [name for name, value in batch.inputs.items() if value.is_floating_point()]
    if len(names) != 1:
        raise BadInput.of("method", method, WHY, FIX)
    return names[0]


def with_input(batch: Batch, name: str, value: Tensor) -> Batch:
    """The batch with another tensor as this input."""
    return dataclasses.replace(batch, inputs={**batch.inputs, name: value})


def step_up(model: Model, rows: Sequence[Example], size: float, method: str) -> Iterator[tuple[list[int], Batch]]:
    """(indices, Batch) of rows that took one step up their loss by the sign of its slope (1412.6572, eq. 2).

    size: of the step, as a share of the range of all rows' numbers, within which the result stays. Raises BadInput.
    """
    made = list(batches(rows, model.length, model.collate))
    name = numeric(made[0][1], method)
    ends = torch.stack([torch.stack(batch.inputs[name].aminmax()) for _, batch in made])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    ready = [(indices, with_input(batch, name, batch.inputs[name].requires_grad_())) for indices, batch in made]
    for (indices, out), (_, batch) in zip(outputs(model, ready, gradients=True), ready, strict=True):
        x_B = batch.inputs[name]
        (slope_B,) = torch.autograd.grad(out.nll_B.sum(), x_B)
        moved_B = (x_B.detach() + size * (high - low) * slope_B.sign()).clamp(low, high)
        yield indices, with_input(batch, name, moved_B)


def array_field(example: Example, method: str) -> str:
    """The field of an example that holds its numbers, of one dimension or more. Raises BadInput."""
    for name, value in example.items():
        if isinstance(value, np.ndarray | list) and (array := np.asarray(value)).ndim and array.dtype.kind in "uif":
            return name
    raise BadInput.of("method", method, WHY, FIX)


def unit_array(example: Example, name: str) -> np.ndarray:
    """The numbers as float32, bytes scaled to [0, 1]."""
    array = np.asarray(example[name])
    return array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)


def put_array(example: Example, name: str, array: np.ndarray) -> Example:
    """The example with other numbers, in the type that its own have; bytes are rounded and clipped."""
    if np.asarray(example[name]).dtype == np.uint8:
        array = np.clip(np.rint(255 * array), 0, 255).astype(np.uint8)
    return {**example, name: array}
