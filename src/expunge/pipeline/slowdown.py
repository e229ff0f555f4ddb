"""The time that guards add to a forward pass."""

from __future__ import annotations

import math
import time

import torch

from expunge.core.contracts import Model
from expunge.data.splits import Splits
from expunge.models.guarded import guards_of, unguarded

ROUNDS, EXAMPLES = 3, 32
"""Forwards of each kind in turn, and examples at most of the forget and of the retain split."""


def slowdown(model: Model, splits: Splits) -> float | None:
    """Time of a forward behind the guards, over that of the bare model; None where there are no guards.

    The shortest of ROUNDS each, in turn: what else a machine does can only lengthen a forward. It is this machine's
    figure, for scoring alone; generation is not timed.
    """
    rows = [row for name in ("forget", "retain") for row in splits.get(name, [])[:EXAMPLES]]
    if not guards_of(model) or not rows:
        return None
    bare, shortest = unguarded(model), {True: math.inf, False: math.inf}
    batch = model.collate(rows)
    with torch.no_grad():
        for behind in (True, False) * ROUNDS:
            began = time.perf_counter()
            (model if behind else bare).forward(batch)
            shortest[behind] = min(shortest[behind], time.perf_counter() - began)
    return round(shortest[True] / shortest[False], 3)
