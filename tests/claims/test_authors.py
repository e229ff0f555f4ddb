"""The claims on the authors world of seed 1 (the recipes were set on seed 0)."""

from __future__ import annotations

from pathlib import Path

import pytest
from _measure import World, forgotten, world
from _suite import SEED, Claims

from expunge.builtin import build
from expunge.data.worlds import splits


@pytest.fixture(scope="module")
def place(cache: Path) -> World:
    return world(build("builtin:authors@1"), splits("authors", 1))


class TestAuthors(Claims):
    def test_unlearning_costs_a_fifth_of_retraining_at_most(self, place: World, tmp_path: Path) -> None:
        """Curve and caching included; both timed on this machine, one after the other."""
        _, outcome = forgotten(place, "npo", tmp_path, SEED)
        assert outcome["seconds"] <= 0.2 * place.gold_seconds
