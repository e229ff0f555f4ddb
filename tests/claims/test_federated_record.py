"""What a federation's server can tell of a client's rows from what it kept of the rounds, before and after a departure.

The script's settings, which were looked at on seed 100.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest

from loading import load_script

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
each = pytest.mark.parametrize("seed", SEEDS)


@functools.cache
def measured(seed: int) -> dict[str, Any]:
    """What scripts/federation_record prints of the sequence of models, made once."""
    found: dict[str, Any] = load_script("federation_record").measure(seed)
    return found


@each
def test_a_client_s_own_updates_tell_its_rows_and_means_do_not(seed: int) -> None:
    """By how much the client's own updates lowered the loss of a row tells its rows with an AUC more than .08 above
    that of the sequence of common models; this is within .06 of the last model's, and after the departure within .06 of
    gold's, as it nearly was before."""
    found = measured(seed)
    before, after, gold = found["before"], found["after"], found["gold"]
    assert before["own"] > before["auc"] + 0.08, found
    assert abs(before["auc"] - before["last"]) < 0.06, found
    assert abs(after["auc"] - gold["auc"]) < 0.06, found


@each
def test_a_client_that_stays_tells_little_of_another_s_rows(seed: int) -> None:
    """What the largest staying client learns from its own rows and all common models tells the leaving client's rows
    with an AUC within .1 of .5, before and for gold, and more than .08 below what the server has in single updates."""
    found = measured(seed)
    before, gold = found["before"], found["gold"]
    print(seed, before, gold)
    assert abs(before["fellow"] - 0.5) < 0.1 and abs(gold["fellow"] - 0.5) < 0.1, found
    assert before["fellow"] < before["own"] - 0.08, found


@each
def test_rows_are_read_off_the_updates_of_a_small_client(seed: int) -> None:
    """Of a client with four rows that takes a step on all of them, the server reads all off: correlations over .95, by
    chance under .8. Of one with 40 rows and ten steps means: told from unseen rows still, by an AUC over .65."""
    found = load_script("federation_record").measure_few(seed)
    few, more = found["few"], found["more"]
    assert few["auc"] > 0.95 and few["likeness"] > 0.95 > 0.8 > few["chance"], found
    assert 0.65 < more["auc"] < few["auc"] and more["likeness"] > more["chance"], found
