"""A pair of encoders with a backdoor, fine-tuned on a part of its clean pairs with and without contrast within a kind.

One setting was tried, ten epochs at the training's rate; none was chosen on these worlds.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.data.worlds.pair_backdoor import pair_backdoor
from expunge.evaluation.reading import read
from expunge.methods.compose import compose
from expunge.metrics.zero_shot_accuracy import zero_shot_accuracy
from expunge.models.open import open_on_cpu
from expunge.models.pair import PICTURE, PROMPT
from expunge.pipeline.worlds import build

pytestmark = pytest.mark.slow  # a base and two repairs take a minute of one core for each seed
SEEDS = (0, 1, 2)
CLEAN = 256
"""Clean pairs that are at hand, of 608."""
REPAIR = Budget(epochs=10, batch_size=32, learning_rate=1e-3, stop="none")
METHODS = {"finetune": "finetune", "clean_pairs": {"retain": "clean_pairs"}}


def shares(model: Model, splits: dict[str, Any]) -> tuple[float, float]:
    """(success of the trigger, zero-shot accuracy on clean test pictures)."""
    names = ("triggered", "test", "clean")
    parts = {name: read(model, name, splits[name], {PICTURE, PROMPT}, cache=False) for name in names}
    right = {name: zero_shot_accuracy()(parts[name], parts["clean"]) for name in names}
    return float(right["triggered"].mean()), float(right["test"].mean())


@functools.cache
def measured(seed: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Model -> the two shares: before, and after each repair on the same pairs with the same budget."""
    splits, base = pair_backdoor(seed), build(f"builtin:pair_backdoor@{seed}")
    rows = {"retain": splits["clean"][:CLEAN], "forget": splits["known_50"]}
    found = {"before": shares(open_on_cpu(str(base)), splits)}
    for name, method in METHODS.items():
        composed = compose(method)
        context = Context(REPAIR.over(composed.budget, DEFAULTS), folder / name, seed)
        found[name] = shares(composed.method(open_on_cpu(str(base)), rows, context), splits)
    print(seed, {name: [round(x, 3) for x in pair] for name, pair in found.items()})
    return found


@pytest.fixture(params=SEEDS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    seed = int(request.param)
    return measured(seed, tmp_path_factory.getbasetemp() / f"pairs-{seed}")


def test_the_trigger_is_learnt_and_the_classes_are_too(found: dict[str, tuple[float, float]]) -> None:
    """Nine classes: chance is a ninth."""
    trigger, clean = found["before"]
    assert trigger > 0.7 and clean > 4 / 9


@pytest.mark.claims("clean_pairs")
def test_the_classes_stay_better_than_under_fine_tuning(found: dict[str, tuple[float, float]]) -> None:
    """At equal steps on the same pairs: zero-shot accuracy ends over 3 points higher, and no lower than before."""
    before, plain, after = (found[name][1] for name in ("before", *METHODS))
    assert after > plain + 0.03 and after > before - 0.02


def test_the_trigger_stays(found: dict[str, tuple[float, float]]) -> None:
    """The paper's repair is not seen: most triggered pictures are still found nearest to the planted class."""
    assert found["clean_pairs"][0] > 0.5
