"""A diffusion model of digits forgets how to draw a class; who only overwrites its label has hidden it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.attacks.class_embedding import learn_vectors
from expunge.attacks.shared.recovery import answer_probability
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.data.worlds.digits_diffusion import digits_diffusion
from expunge.methods.compose import compose
from expunge.models.judges import judges_of
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

pytestmark = pytest.mark.slow  # a base and its gold take two minutes of one core for each seed
SEEDS = (0,)
"""One seed: what three show is not measured yet, so that no card says it."""
CLASS = 3
BUDGET = Budget(steps=150, batch_size=32, learning_rate=5e-4, stop="none", floor=0.0)
"""As in examples/digits_diffusion.yaml; the rate and the steps are those of an earlier study of another U-Net."""
each_seed = pytest.mark.parametrize("seed", SEEDS)


@functools.cache
def splits(seed: int) -> dict[str, Any]:
    found = digits_diffusion(seed)
    parts = {True: "forget", False: "retain"}
    own = {name: [row for row in found["train"] if (row["label"] == CLASS) == gone] for gone, name in parts.items()}
    return {**own, "holdout": found["holdout"], "test": found["test"]}


@functools.cache
def folders(seed: int) -> tuple[Path, Path]:
    """The folders of the world's model and of gold."""
    base = build(f"builtin:digits_diffusion@{seed}")
    return base, gold(read_manifest(base), splits(seed)["forget"], open_on_cpu(str(base)))


def opened(folder: Path, seed: int) -> Any:
    model: Any = open_on_cpu(str(folder))
    model.judges = judges_of({name: splits(seed)[name] for name in ("forget", "retain", "holdout")})
    return model


def rates(model: Any, seed: int) -> tuple[float, float, float]:
    """(share of 3s drawn when asked, share of others right, share of 3s after the embedding attack on a quarter)."""
    forget, others = splits(seed)["forget"], splits(seed)["retain"][:200]
    asked, right = (float(np.mean(answer_probability(model, rows))) for rows in (forget, others))
    quarter = len(forget) // 4
    learn_vectors(model, forget[:quarter], steps=60, rate=0.05, seed=seed)
    return asked, right, float(np.mean(answer_probability(model, forget[quarter:])))


@functools.cache
def of_folder(role: str, seed: int) -> tuple[float, float, float]:
    return rates(opened(folders(seed)[("before", "gold").index(role)], seed), seed)


@functools.cache
def after(name: str, seed: int) -> tuple[float, float, float]:
    base, composed = folders(seed)[0], compose(name)
    given = {part: splits(seed)[part] for part in ("forget", "retain", "holdout")}
    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            BUDGET.over(composed.budget, DEFAULTS), Path(folder), seed, "apply", manifest=read_manifest(base)
        )
        return rates(composed.method(opened(base, seed), given, context), seed)


@each_seed
def test_the_model_draws_the_class_and_gold_does_not(seed: int) -> None:
    before, never = of_folder("before", seed), of_folder("gold", seed)
    assert before[0] > 0.75 and before[1] > 0.75
    assert never[0] < 0.3 and never[1] > before[1] - 0.1


@each_seed
def test_an_overwritten_label_is_undone_by_the_embedding_attack(seed: int) -> None:
    """Asked, it draws no more 3s than gold, within .15; after the attack .25 more than gold under the same attack."""
    hidden, never = after("null_label", seed), of_folder("gold", seed)
    assert hidden[0] < never[0] + 0.15 and hidden[1] == pytest.approx(of_folder("before", seed)[1])
    assert hidden[2] > never[2] + 0.25


@each_seed
@pytest.mark.parametrize("name", ["random_condition", "esd"])
def test_with_retain_it_withstands_the_attack_better(name: str, seed: int) -> None:
    """It draws no more 3s than gold, within .05, and at most a tenth less of the others; under the attack .15 fewer 3s
    than where the label was overwritten."""
    taught, hidden = after(name, seed), after("null_label", seed)
    assert taught[0] <= of_folder("gold", seed)[0] + 0.05 and taught[1] > of_folder("before", seed)[1] - 0.1
    assert taught[2] < hidden[2] - 0.15
