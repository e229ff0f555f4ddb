"""A fork server and a world for each file of tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Place, Server, world


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def place(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return world(tmp_path_factory.mktemp("reliability") / "place", server)
