"""Columns at several parties, of which each leaves out those of its own that its part does not need (LESS-VFL)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.methods.trainers import vertical

NAME = "less_vfl"
STEPS = 300
"""Of a party's own regression, which costs no message."""


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """As of `vertical`. Raises BadInput."""
    vertical.check(model, data, **options)


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    parties: Annotated[int, Ge(2), Le(1000)] | list[int] = 2,
    passes: Annotated[int, Ge(1), Le(1000)] = 1,
    strength: Annotated[float, Gt(0), Le(1)] = 0.2,
) -> Model:
    """Train for a few passes, let each party choose its columns by itself, and train anew on the chosen ones.

    After `passes` over all columns as `vertical` trains them, each party regresses its own part of the logits on its
    standardised columns under a group lasso, a group for each column, which takes no message; columns with a group of
    zero are left out. strength: of the penalty, over the least at which no column would be left. Then the budget's
    epochs on what is left. Both trainings begin at weights of zero, where those of dropped columns stay. Source:
    arXiv:2305.02219, equations 5 to 7, in the linear case: a party's embedding is its part of the logits, so that the
    server's choice among embeddings falls away. Raises BadInput.
    """
    began, linear = time.monotonic(), vertical.layer_of(fresh)
    columns = vertical.cut(parties, linear.in_features)
    table_NF, labels_N = vertical.table_of(data)
    linear.weight.data.zero_()  # of a random start a noise column's part would stay as large as it began
    first = vertical.learn(table_NF, labels_N, linear, columns, context, passes, f"{NAME}/first")
    chosen_F = np.concatenate([choose_columns(party.columns_NF, party.weights_CF, strength) for party in first.members])
    server = vertical.learn(
        table_NF * chosen_F, labels_N, linear, columns, context, int(context.budget.epochs or 1), NAME
    )
    vertical.write(server, linear)
    fresh.module.eval()
    account, before = server.account(), first.account()
    account["steps"] += before["steps"]
    account["tokens"] += before["tokens"]
    for name in ("bytes_up", "bytes_down"):
        account["federation"][name] += before["federation"][name]
    account["federation"]["columns"] = np.flatnonzero(chosen_F).tolist()
    context.notes["outcome"] = account | {"seconds": time.monotonic() - began}
    return fresh


def choose_columns(x_NF: np.ndarray, weights_CF: np.ndarray, strength: float) -> np.ndarray:
    """Whether each column [F] takes part in a group-lasso regression of the part x w on the standardised columns.

    Proximal gradient: w_f <- w_f max(0, 1 - t s / |w_f|) after each step, s the strength times the least penalty that
    leaves nothing.
    """
    spread_F = x_NF.std(0)
    z_NF = (x_NF - x_NF.mean(0)) / np.where(spread_F > 0, spread_F, 1)
    target_NC = (x_NF - x_NF.mean(0)) @ weights_CF.T
    gram_FF, cross_FC = z_NF.T @ z_NF / len(z_NF), z_NF.T @ target_NC / len(z_NF)
    penalty = strength * float(np.linalg.norm(cross_FC, axis=1).max(initial=0.0))
    step = 1 / max(float(np.linalg.eigvalsh(gram_FF)[-1]), 1e-12)
    w_FC = np.zeros_like(cross_FC)
    for _ in range(STEPS):
        w_FC = w_FC - step * (gram_FF @ w_FC - cross_FC)
        lengths_F = np.linalg.norm(w_FC, axis=1, keepdims=True)
        w_FC = w_FC * np.maximum(0, 1 - step * penalty / np.maximum(lengths_F, 1e-300))
    kept_F: np.ndarray = np.linalg.norm(w_FC, axis=1) > 0
    return kept_F
