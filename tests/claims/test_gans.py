"""A GAN of digits draws no 3 any more, and the others as before; repulsion adds nothing to training on these alone."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.budget import DEFAULTS
from expunge.core.context import Context
from expunge.data.worlds.digits_gan import digits_gan
from expunge.methods.compose import compose
from expunge.metrics.picture_distance import frechet
from expunge.models.judges import Judges, judges_of
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

pytestmark = pytest.mark.slow  # a base and its gold take a minute and a half of one core for each seed
SEEDS = (0, 1, 2)
CLASS = 3
DRAWN = 1000
"""Pictures of a model that are judged, from the same noise for all."""
METHODS: dict[str, Any] = {
    "adapt_then_unlearn": "adapt_then_unlearn",
    "positives alone": {"adapt_then_unlearn": {"repulsion": "none"}},
    "repel_negatives": "repel_negatives",
}
"""With their own defaults, which were chosen on class 7 of seed 5."""
each_seed = pytest.mark.parametrize("seed", SEEDS)


@functools.cache
def splits(seed: int) -> dict[str, Any]:
    found = digits_gan(seed)
    own = {name: [row for row in found["train"] if (row["label"] == CLASS) == gone] for gone, name in NAMES}
    return {**own, "holdout": found["holdout"], "test": found["test"]}


NAMES = ((True, "forget"), (False, "retain"))


@functools.cache
def judges(seed: int) -> Judges:
    found = judges_of({name: splits(seed)[name] for name in ("forget", "retain", "holdout")})
    assert found is not None and found.able
    return found


@functools.cache
def figures(name: str, seed: int) -> tuple[float, float]:
    """(share of votes for a 3, distance of what is drawn from real pictures of the others); before's is the distance
    of its drawings but the 3s."""
    base = build(f"builtin:digits_gan@{seed}")
    model: Any = open_on_cpu(str(base))
    if name == "gold":
        model = open_on_cpu(str(gold(read_manifest(base), splits(seed)["forget"], model)))
    elif name != "before":
        composed = compose(METHODS[name])
        with tempfile.TemporaryDirectory() as folder:
            context = Context(composed.budget.over(DEFAULTS), Path(folder), seed, "apply", manifest=read_manifest(base))
            given = {part: splits(seed)[part] for part in ("forget", "retain")}
            model = composed.method(model, given, context)
    drawn, judge = model.sample(range(DRAWN))[:, 0], judges(seed)
    named_N2 = judge.classes(drawn).numpy()
    assert (named_N2 >= 0).all(), "every picture is accounted for"
    kept = (named_N2 != CLASS).all(1) if name == "before" else np.ones(DRAWN, dtype=bool)
    others = torch.stack([torch.tensor(row["image"])[None] for row in splits(seed)["test"] if row["label"] != CLASS])
    apart = frechet(judge.features(drawn).numpy()[kept], judge.features(others).numpy())
    return float((named_N2 == CLASS).mean()), apart


@each_seed
def test_before_draws_threes_and_gold_does_not(seed: int) -> None:
    assert figures("before", seed)[0] > 0.06 and figures("gold", seed)[0] < 0.02


@pytest.mark.claims("adapt_then_unlearn")
@each_seed
@pytest.mark.parametrize("name", ["adapt_then_unlearn", "positives alone"])
def test_the_feature_is_gone_and_the_others_are_drawn_as_before(name: str, seed: int) -> None:
    """Under 5 % of the pictures are 3s, and the distance from real others is at most a fifth above before's."""
    rate, apart = figures(name, seed)
    assert rate < 0.05 and apart <= 1.2 * figures("before", seed)[1]


@each_seed
def test_repulsion_adds_nothing_to_training_on_what_may_stay(seed: int) -> None:
    """The published gap does not appear here: within 2 points of training on the others alone."""
    assert abs(figures("adapt_then_unlearn", seed)[0] - figures("positives alone", seed)[0]) < 0.02


@pytest.mark.claims("repel_negatives")
@each_seed
def test_the_forget_set_as_fakes_leaves_less_and_costs_the_others(seed: int) -> None:
    """No more 3s than after adaptation, within half a point, and a larger distance than that."""
    rate, apart = figures("repel_negatives", seed)
    other = figures("adapt_then_unlearn", seed)
    assert rate <= other[0] + 0.005 and apart > other[1]
