"""How unlikely a classifier finds a forgotten class, set by the bias of its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.core.contracts import Example, Model, want_of
from expunge.methods._head import linear_head
from expunge.models.passes import passes

FARTHEST = 100.0
"""Logits that a bias is moved by at most."""


def forgotten_classes(splits: Mapping[str, Sequence[Example]]) -> list[int]:
    """The labels of forget rows that no retain row has."""
    forget, retain = ({row.get("label") for row in splits.get(name, [])} for name in ("forget", "retain"))
    return sorted(int(label) for label in forget - retain if label is not None)


def class_levels(model: Model, rows: Sequence[Example], classes: Sequence[int]) -> dict[int, float]:
    """Class -> the median NLL of its rows (nats)."""
    logits_NV, label_N = _logits(model, rows)
    nll_N = -torch.log_softmax(logits_NV, 1)[torch.arange(len(rows)), label_N]
    return {c: float(np.median(nll_N[label_N == c])) for c in classes}


def set_class_levels(model: Model, rows: Sequence[Example], levels: Mapping[int, float]) -> dict[str, float]:
    """Move the head's bias of each class until the median NLL of its rows is its level; returns the moves by class.

    Raises BadInput for a model without a linear head.
    """
    from scipy.optimize import brentq  # slow to load, and every plan reads the methods' files

    _, head = linear_head(model, list(rows[:2]), "its bias sets how unlikely a class is")
    logits_NV, label_N = _logits(model, rows)
    moves: dict[str, float] = {}
    for c, level in levels.items():
        own_MV = logits_NV[label_N == c]

        def off(move: float, own_MV: Tensor = own_MV, c: int = c, level: float = level) -> float:
            moved_MV = own_MV.clone()
            moved_MV[:, c] += move
            return float(np.median(-torch.log_softmax(moved_MV, 1)[:, c])) - level

        moves[str(c)] = move = float(brentq(off, -FARTHEST, FARTHEST))
        with torch.no_grad():
            head.bias[c] += move
    return moves


def _logits(model: Model, rows: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """([N, V] logits in float64, [N] labels)."""
    found: dict[int, tuple[Tensor, int]] = {}
    for places, out in passes(model, rows, want_of({"logits"})):
        logits_BV = out.logits_BTV[:, 0].double().cpu()
        found |= {i: (logits_V, int(label)) for i, logits_V, label in zip(places, logits_BV, out.labels_BT[:, 0])}
    return torch.stack([found[i][0] for i in range(len(rows))]), torch.tensor([found[i][1] for i in range(len(rows))])
