"""Runs that the contract tests share, each made once a session."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from models import METHODS, Ran, Spy, base, breaking_point, run, splits

from expunge.models.open import open_on_cpu


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """(name, family, seed) -> the run, made once; nobody may change what it returns."""

    @functools.cache
    def make(name: str, family: str, seed: int = 0) -> Ran:
        return run(METHODS[name], family, tmp_path_factory.mktemp("ran"), seed=seed)

    return make


@pytest.fixture(scope="session")
def again(ran: Callable[..., Ran], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """The same run once more, from files, with spies on the data: broken off on its way, and gone on with."""

    @functools.cache
    def make(name: str, family: str) -> Ran:
        folder = tmp_path_factory.mktemp("again")
        (folder / "base").mkdir()
        base(family).save(folder / "base")
        if kept := getattr(base(family), "history", None):  # which a training writes beside its model
            shutil.copytree(kept, folder / "base", dirs_exist_ok=True)
        opened = open_on_cpu(str(folder / "base"))  # an adapter names the folder that its base came from
        spies = {"holdout": Spy(splits(family)["holdout"])}
        data = {**splits(family), **spies}
        at = breaking_point(ran(name, family))
        with pytest.raises(KeyboardInterrupt):
            run(METHODS[name], family, folder, model=copy.deepcopy(opened), data=data, at=at)
        made = run(METHODS[name], family, folder, model=opened, data=data)
        made.spies = spies
        return made

    return make


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose time to a second thread, most of all beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
