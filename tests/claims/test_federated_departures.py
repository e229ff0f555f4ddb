"""Clients that leave: by distillation at the others, and exactly, where the federation was trained in shards.

The methods' defaults, which were looked at on the worlds' seed 100; the seeds here set nothing.
"""

from __future__ import annotations

import functools
import os
from statistics import mean
from typing import Any

import pytest

from expunge.data.worlds._pictures import file_of
from loading import load_script

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
PICTURES = file_of("mnist").parent
CLEAN, TRIGGER = 0, 1
ENOUGH, LONG = 5, 15
"""Rounds after which a method is judged, and up to which the trigger is watched."""
each = pytest.mark.parametrize("seed", SEEDS)


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES))


@functools.cache
def measured(world: str, seed: int) -> dict[str, Any]:
    """What scripts/federation_figures prints of distillation, made once."""
    script = load_script("federation_figures")
    found: dict[str, Any] = script.measure(world, seed, script.SUBTRACTED)
    return found


@each
@pytest.mark.parametrize("world", ["digits_federation", "mnist_federation"])
@pytest.mark.claims("distil_others")
def test_subtraction_and_distillation_at_the_others_erase_the_trigger(world: str, seed: int) -> None:
    """Five rounds in which no label is read, after the client's updates were subtracted: clean accuracy within 2 points
    of gold's, the trigger under .05 and, in ten further rounds, under .1. As many rounds by labels from the subtracted
    weights do that as well: the subtraction erases, and the old model's answers stand for labels that nobody has."""
    found = measured(world, seed)
    for name in ("distil_others", "subtracted, then rounds by labels"):
        clean, trigger = found[name]["rounds"][ENOUGH - 1]
        assert clean >= found["gold"][CLEAN] - 0.02, name
        assert trigger < 0.05, name
        assert max(each[TRIGGER] for each in found[name]["rounds"][ENOUGH - 1 : LONG]) < 0.1, name


@each
@pytest.mark.claims("federated_sisa")
def test_shards_forget_the_hostile_client_at_a_part_of_a_retraining_and_keep_accuracy(seed: int) -> None:
    """Two shards of two slices: a client's departure takes under .45 of a retraining's steps on average and .6 at most;
    accuracy is within 3 points of one federation's before and after the hostile client's, whose trigger worked in over
    .5 of the cases, and then in under .05."""
    found = load_script("federation_shards").measure(seed)
    assert mean(found["cost"].values()) < 0.45 and max(found["cost"].values()) < 0.6, found
    for when in ("before", "after"):
        assert abs(found[when][CLEAN] - found["one federation"][CLEAN]) < 0.03, found
    assert found["before"][TRIGGER] > 0.5 and found["after"][TRIGGER] < 0.05, found
