"""A task that a hypernetwork unlearned, while it learns later ones: figures of scripts/relapse on three seeds.

The weights that hold other tasks were looked at on seed 20, with all rows; the seeds here set nothing.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest

from loading import load_script

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
SCRIPT = load_script("relapse")
GONE: int = SCRIPT.GONE
each = pytest.mark.parametrize("seed", SEEDS)


@cache
def measured(seed: int) -> dict[str, Any]:
    found: dict[str, Any] = SCRIPT.measure(seed)
    return found


def highest(found: dict[str, Any]) -> float:
    """Accuracy on the task at its highest from its unlearning on."""
    return max(found["after"][GONE], *found["later"])


@each
def test_there_is_a_task_to_unlearn(seed: int) -> None:
    found = measured(seed)
    assert found["before"][GONE] > 0.8 and highest(found["gold"]) < 0.25


@each
@pytest.mark.claims("uncle")
def test_the_unlearned_task_stays_at_chance_while_later_ones_are_learned(seed: int) -> None:
    """Ten classes: never above a quarter, as in gold. The other tasks lose three points at most."""
    found = measured(seed)
    assert highest(found["uncle"]) < 0.25, found["uncle"]
    others = [task for task in range(SCRIPT.FIRST) if task != GONE]
    assert all(found["uncle"]["after"][task] >= found["before"][task] - 0.03 for task in others), found
    assert min(found["uncle"]["end"][task] for task in range(SCRIPT.TASKS) if task != GONE) > 0.75


@each
@pytest.mark.claims("uncle")
def test_random_labels_leave_a_third_of_it(seed: int) -> None:
    """Of the baselines random labels leave the task at three in ten at least, right after. That it comes back while
    later tasks are learned shows on single seeds alone, by nine points at most."""
    found = measured(seed)
    assert found["random_label"]["after"][GONE] > 0.3 and found["uncle"]["after"][GONE] < 0.15


@each
@pytest.mark.claims("uncle")
def test_an_attacker_finds_some_of_it_with_a_new_vector(seed: int) -> None:
    """Of a hundred rows of the task: more than of gold, so that the hypernetwork hides what it can still write."""
    found = measured(seed)
    assert found["uncle"]["found"] > found["gold"]["found"] + 0.1, found
