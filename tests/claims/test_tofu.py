"""The claims on real TOFU pairs, with the model of examples/tofu_base.yaml (minutes: nightly)."""

from __future__ import annotations

from pathlib import Path

import pytest
from _measure import World, forgotten, world
from _suite import SEED, Claims

from expunge.core.train_config import TrainConfig
from expunge.data.splits import make_splits
from expunge.pipeline.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(data: Path, cache: Path, monkeypatch_module: pytest.MonkeyPatch) -> World:
    monkeypatch_module.setenv("EXPUNGE_DATA", str(data))
    out = cache / "tofu"
    if not out.exists():
        train(TrainConfig.read("examples/tofu_base.yaml", {"out": str(out), "seed": 1}))
    splits = make_splits(
        {
            "data": ["${EXPUNGE_DATA}/tofu/retain.jsonl", "${EXPUNGE_DATA}/tofu/forget.jsonl[0:160]"],
            "forget": "${EXPUNGE_DATA}/tofu/forget.jsonl[0:40]",
            "holdout": "${EXPUNGE_DATA}/tofu/forget.jsonl[160:200]",
        }
    )
    return world(out, splits)


@pytest.fixture(scope="module")
def monkeypatch_module() -> pytest.MonkeyPatch:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


class TestTofu(Claims):
    """The suite, but for NPO, whose level small scale does not show here.

    A model of 1.5 M parameters that learns 340 natural sentences by heart is wildly surprised by any
    other (gold's forget NLL is 7-8 nats a token, above that of a uniform guess). NPO's gradient fades
    long before: it stalls at about 3 nats, and its evidence says that the budget ended it.
    """

    def test_npo_forgets_to_golds_level_and_keeps_the_rest(self, place: World, tmp_path: Path) -> None:
        after, outcome = forgotten(place, "npo", tmp_path, SEED)
        assert outcome["stop"]["reason"] == "budget" and "before the forget NLL" in outcome["stop"]["sentence"]
        assert after.rouge_l <= place.gold.rouge_l + 0.1, "the answers are gone all the same"
        assert after.forget_nll > 20 * place.before.forget_nll
        assert after.retain_probability >= 0.9 * place.before.retain_probability
