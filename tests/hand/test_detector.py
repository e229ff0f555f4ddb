"""The guards' detector of prompts, on token ids drawn by seed."""

from __future__ import annotations

import random
from typing import Any

from expunge.methods.guards._detector import FALSE_ALARMS, fit


def prompts(count: int, first: int, seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(first, first + 40) for _ in range(6)] for _ in range(count)]


def test_a_threshold_below_the_quantile_of_false_alarms_is_said() -> None:
    """Prompts alike: the median of those to flag is below the quantile, and more false alarms than allowed follow."""
    notes: dict[str, Any] = {}
    fit(prompts(40, 0, 1), prompts(120, 0, 2), notes)
    assert notes["detector"]["false_alarms"] > FALSE_ALARMS
    assert len(notes["remarks"]) == 1 and "hard to tell apart" in notes["remarks"][0]


def test_prompts_that_differ_need_no_remark() -> None:
    notes: dict[str, Any] = {}
    fit(prompts(40, 0, 1), prompts(120, 40, 2), notes)
    assert notes["detector"]["recall"] == 1.0 and "remarks" not in notes
