"""Language models that several files of claims share; each is trained once for a cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from _measure import World
from _people import FORGET, RETAIN, based, thoughts


@pytest.fixture(scope="session")
def people(cache: Path) -> World:
    return based(cache / "worlds" / "people", FORGET, RETAIN, 40)


@pytest.fixture(scope="session")
def thinking(cache: Path) -> World:
    """The same model, which has also learned to reason before it answers."""
    both = based(cache / "worlds" / "thinking", [*FORGET, *thoughts(FORGET)], [*RETAIN, *thoughts(RETAIN)], 30)
    return World(**{**vars(both), "splits": {"forget": FORGET, "retain": RETAIN}})
