"""The claims on the authors world of seed 1 (the recipes were set on seed 0)."""

from __future__ import annotations

from pathlib import Path

import pytest
from _measure import World, forgotten, world
from _suite import SEED, Claims

from expunge.data.worlds import splits
from expunge.pipeline.worlds import build


@pytest.fixture(scope="module")
def place(cache: Path) -> World:
    return world(build("builtin:authors@1"), splits("authors", 1))


@pytest.mark.slow
class TestAuthors(Claims):
    def test_unlearning_costs_a_fifth_of_retraining(self, place: World, tmp_path: Path) -> None:
        """The same on a calm machine: a fifth, with a tenth of that for the clock."""
        _, outcome = forgotten(place, "npo", tmp_path, SEED)
        assert outcome["seconds"] <= 0.22 * place.gold_seconds
