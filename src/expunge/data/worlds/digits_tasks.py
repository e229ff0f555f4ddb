"""Handwritten digits as five tasks: in each, the pixels are in an order of its own (permuted digits)."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.core.random import permutation
from expunge.data.worlds import digits as plain

TASKS, FIRST = 5, 3
"""Tasks in all, and those that the model of the world has learned; the others are for later."""
PIXELS = 64
TRAINING = {
    "model": {"network": "Hypernetwork", "arguments": {"inputs": PIXELS, "tasks": TASKS}},
    "data": "{world}/train",
    "trainer": "tasks",
    "epochs": 12,
    "batch_size": 32,
    "learning_rate": 3e-3,
}


def digits_tasks(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Splits "train", "holdout" and "test" of the first three tasks, "later" and "later_test" of the others.

    A row: features [65] float32, the pixels in [0, 1] in the task's order and the number of the task; label 0-9; task.
    In task 0 the pixels are in their own order. The same pictures make every task.
    """
    parts = plain.digits(seed)
    orders = [np.array(permutation(PIXELS, seed, "task", task)) if task else np.arange(PIXELS) for task in range(TASKS)]

    def rows(split: str, first: int, last: int) -> list[dict[str, Any]]:
        return [_row(row, orders[task], task) for task in range(first, last) for row in parts[split]]

    return {
        **{split: rows(split, 0, FIRST) for split in ("train", "holdout", "test")},
        "later": rows("train", FIRST, TASKS),
        "later_test": rows("test", FIRST, TASKS),
    }


def _row(row: dict[str, Any], order: np.ndarray, task: int) -> dict[str, Any]:
    pixels = row["image"].ravel()[order]
    return {"features": np.append(pixels, task).astype(np.float32), "label": row["label"], "task": task}
