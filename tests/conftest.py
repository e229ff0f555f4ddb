"""Shared fixtures: the data folder, a private cache, two threads."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("EXPUNGE_DATA", "../shared/data"))


def pytest_configure(config: pytest.Config) -> None:
    """Test workers are many: none may take all cores, and floats must not depend on how many."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, 2 // workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch

    torch.set_num_threads(threads)
    os.fsync = lambda handle: None  # no test takes the power away


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no later collection of garbage need look through its millions of
    objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets; without it the test is skipped, loudly."""
    if not DATA.is_dir():
        pytest.skip(f"NO DATA: {DATA} is absent; set EXPUNGE_DATA to run this test")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Worlds, golds and readouts are built once a session, apart from the user's own cache."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("EXPUNGE_TEST_CACHE") or shared / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["EXPUNGE_CACHE"] = str(folder)
    return folder
