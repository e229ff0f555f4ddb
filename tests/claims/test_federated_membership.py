"""What membership attacks tell of an erased client's own rows, in federations whose clients hold unlike or like data.

The methods' defaults and the script's settings, which were looked at on seed 100.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest

from loading import load_script

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
MEMBERSHIP, ACCURACY = 0, 1


@functools.cache
def measured(partition: str, seed: int) -> dict[str, Any]:
    """What scripts/federation_membership prints, made once."""
    found: dict[str, Any] = load_script("federation_membership").measure(partition, seed)
    return found


each = pytest.mark.parametrize("seed", SEEDS)


@each
@pytest.mark.claims("erase_client")
@pytest.mark.parametrize("partition", ["0.3", "iid"])
def test_membership_of_the_erased_client_s_rows_is_that_of_gold(partition: str, seed: int) -> None:
    """Rows dealt out by a Dirichlet distribution of .3, or alike: the AUC of the loss between the largest client's rows
    and untrained ones of the same draw is within .1 of gold's after the erasure, at accuracy within 3 points."""
    found = measured(partition, seed)
    assert abs(found["erase_client"][MEMBERSHIP] - found["gold"][MEMBERSHIP]) < 0.1, found
    assert found["erase_client"][ACCURACY] > found["gold"][ACCURACY] - 0.03, found
