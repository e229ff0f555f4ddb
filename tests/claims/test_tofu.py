"""The claims on real TOFU pairs, with the model of examples/tofu_base.yaml (minutes: nightly)."""

from __future__ import annotations

from pathlib import Path

import pytest
from _measure import World, world
from _suite import Claims

from expunge.core.train_config import TrainConfig
from expunge.data.splits import make_splits
from expunge.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(data: Path, cache: Path, monkeypatch_module: pytest.MonkeyPatch) -> World:
    monkeypatch_module.setenv("EXPUNGE_DATA", str(data))
    out = cache / "tofu"
    if not out.exists():
        train(TrainConfig.read("examples/tofu_base.yaml", {"out": str(out), "seed": 1}))
    splits = make_splits(
        data=["${EXPUNGE_DATA}/tofu/retain.jsonl", "${EXPUNGE_DATA}/tofu/forget.jsonl[0:160]"],
        forget="${EXPUNGE_DATA}/tofu/forget.jsonl[0:40]", holdout="${EXPUNGE_DATA}/tofu/forget.jsonl[160:200]",
    )  # fmt: skip
    return world(out, splits)


@pytest.fixture(scope="module")
def monkeypatch_module() -> pytest.MonkeyPatch:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


class TestTofu(Claims):
    """The suite as it stands."""
