"""The time that guards add to a forward pass."""

from __future__ import annotations

import math
import time

import torch

from expunge.core.contracts import Model
from expunge.data.splits import Splits
from expunge.models.guarded import bare_model, guards_of

ROUNDS, EXAMPLES = 3, 32
"""Forwards of each kind in turn, and examples at most of the forget and of the retain split."""
LONG = 2.0
"""Seconds of a forward from which one of each kind is enough: noise is small beside it, and a large model slow."""


def slowdown(model: Model, splits: Splits) -> float | None:
    """Time of a forward behind the guards, over that of the bare model; None where there are no guards.

    The shortest of ROUNDS each, in turn: what else a machine does can only lengthen a forward. A forward that takes
    LONG is timed once. It is this machine's figure, for scoring alone; generation is not timed.
    """
    rows = [row for name in ("forget", "retain") for row in splits.get(name, [])[:EXAMPLES]]
    if not guards_of(model) or not rows:
        return None
    bare, shortest = bare_model(model), {True: math.inf, False: math.inf}
    batch = model.collate(rows)
    with torch.no_grad():
        for behind in (True, False) * ROUNDS:
            if LONG <= shortest[behind] < math.inf:
                break
            began = time.perf_counter()
            (model if behind else bare).forward(batch)
            shortest[behind] = min(shortest[behind], time.perf_counter() - began)
    return round(shortest[True] / shortest[False], 3)
