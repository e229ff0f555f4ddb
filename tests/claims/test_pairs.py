"""A pair of encoders that learned captions by heart forgets some of them and still tells the classes apart."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from expunge.attacks.loss_auc import loss_auc
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.data.worlds.pair_shapes import pair_shapes
from expunge.evaluation.reading import read
from expunge.evaluation.readout import Readout
from expunge.methods.compose import compose
from expunge.metrics.zero_shot_accuracy import zero_shot_accuracy
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.models.pair import PICTURE, PROMPT
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

pytestmark = pytest.mark.slow  # a base and its gold take a minute of one core for each seed
SEEDS = (0, 1, 2)
TO_TARGETS = Budget(epochs=20, learning_rate=1e-4, stop="none", floor=0.0)
"""Chosen on the world of seed 7: a higher rate, or twice the steps, goes past the targets and loses the classes."""


def figures(model: Model, splits: dict[str, Any]) -> tuple[float, float]:
    """(AUC of the pairs' loss, forget against holdout; zero-shot accuracy on the test pictures)."""
    found: dict[str, Readout] = {
        name: read(model, name, rows, {"nll", PICTURE, PROMPT}, cache=False) for name, rows in splits.items()
    }
    shown = zero_shot_accuracy()(found["test"], found["retain"])
    return loss_auc()(found["forget"], found["holdout"]).value, float(shown.mean())


@functools.cache
def world(seed: int) -> tuple[Path, Path]:
    """The folders of the world's pair and of gold."""
    base = build(f"builtin:pair_shapes@{seed}")
    return base, gold(read_manifest(base), pair_shapes(seed)["forget"], open_on_cpu(str(base)))


def after(method: Any, budget: Budget, seed: int, folder: Path) -> tuple[float, float]:
    base, _ = world(seed)
    splits, composed = pair_shapes(seed), compose(method)
    chosen = budget.over(composed.budget, DEFAULTS)
    context = Context(chosen, folder, seed, "apply", manifest=read_manifest(base))
    given = {name: splits[name] for name in ("forget", "retain", "holdout")}
    return figures(composed.method(open_on_cpu(str(base)), given, context), splits)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_pair_knows_its_captions_and_gold_does_not(seed: int) -> None:
    before, retrained = (figures(open_on_cpu(str(folder)), pair_shapes(seed)) for folder in world(seed))
    assert before[0] > 0.9 and abs(retrained[0] - 0.5) < 0.15
    assert before[1] > 3 / 9 and abs(before[1] - retrained[1]) < 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_pushed_to_its_targets_it_forgets_captions_at_the_cost_of_classes(seed: int, tmp_path: Path) -> None:
    """The AUC comes to within .1 of gold's; between 8 and 20 points of zero-shot accuracy go with it."""
    base, retrained = world(seed)
    before, never = (figures(open_on_cpu(str(folder)), pair_shapes(seed)) for folder in (base, retrained))
    auc, shown = after({"npo": {"target": "calibrated"}}, TO_TARGETS, seed, tmp_path)
    assert abs(auc - never[0]) <= 0.1
    assert 0.08 < before[1] - shown < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_trained_on_retain_alone_it_keeps_its_classes_and_has_not_forgotten_enough(seed: int, tmp_path: Path) -> None:
    base, retrained = world(seed)
    before, never = (figures(open_on_cpu(str(folder)), pair_shapes(seed)) for folder in (base, retrained))
    auc, shown = after("finetune", Budget(epochs=10, learning_rate=5e-4, stop="none"), seed, tmp_path)
    assert never[0] + 0.2 < auc < before[0] - 0.05
    assert shown >= before[1] - 0.03
