"""The one evaluation loop: what a model says of rows, in batches of near-equal length.

Models with batch statistics are read in eval mode like all others, so that a row's output never depends on its
neighbours. Where it does so in eval mode too (in-batch contrast), the rows are read in blocks that follow from their
own order: the same rows in the same order always give the same figures, whatever the caller's batch size. A stochastic
model reads an example at its own draw, else at the first.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from expunge.core.card import Example
from expunge.core.contracts import NLL, Batch, Model, Output, Want
from expunge.data.batching import ROWS, by_length


def passes(
    model: Model,
    rows: Sequence[Example],
    want: Want = NLL,
    *,
    positions: str = "answer",
    size: int = ROWS,
    gradients: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[list[int], Output]]:
    """Yields (indices of the rows, their Output), batch by batch in length order; every row comes once.

    The model is in eval mode until the last batch is done or the loop is left, and then in the mode that it had.
    positions: as of the model's `collate`. size: rows of a batch at most. gradients: keep the graph. progress: gets
    the number of rows after each batch that the caller is done with.
    """
    made = (
        blocks(rows, model.together, lambda part: model.collate(part, positions))
        if model.together
        else batches(rows, model.length, lambda part: model.collate(part, positions), size)
    )
    return outputs(model, made, want, gradients=gradients, progress=progress)


def batches(
    rows: Sequence[Any], length: Callable[[Any], int], collate: Callable[[list[Any]], Batch], size: int = ROWS
) -> Iterator[tuple[list[int], Batch]]:
    """(indices, Batch) in length order, each collated when it is due; for rows that the model's own `collate` cannot
    lay out."""
    for indices in by_length([length(row) for row in rows], rows=size):
        yield indices, collate([rows[i] for i in indices])


def blocks(rows: Sequence[Any], size: int, collate: Callable[[list[Any]], Batch]) -> Iterator[tuple[list[int], Batch]]:
    """(indices, Batch) in the rows' own order: blocks of near-equal size, none larger than `size`."""
    count = -(-len(rows) // size)
    ends = [len(rows) * i // max(1, count) for i in range(count + 1)]
    for first, last in itertools.pairwise(ends):
        yield list(range(first, last)), collate(list(rows[first:last]))


def outputs(
    model: Model,
    batches: Iterable[tuple[list[int], Batch]],
    want: Want = NLL,
    *,
    gradients: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[list[int], Output]]:
    """`passes` over batches that are made already."""
    with evaluating(model.module):
        for indices, batch in batches:
            with torch.set_grad_enabled(gradients):  # not around the yield: the caller's own mode is not ours to set
                out = model.forward(batch, want)
            yield indices, out
            if progress:
                progress(len(indices))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in eval mode; afterwards, whatever happens, in the mode that it had."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
