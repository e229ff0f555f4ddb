"""Whether the forgotten looks unseen, on small networks of handwritten digits: the attack tells a model that knows the
forget set from gold, and one gold from another hardly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from expunge.attacks.unseen_auc import unseen_auc
from expunge.core.random import permutation, seed_libraries
from expunge.data.worlds._pictures import mislabel
from expunge.data.worlds.digits import digits
from expunge.evaluation.attack import Target
from expunge.models.classifier import Classifier
from expunge.models.networks import Digits

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)
Splits = dict[str, list[dict[str, Any]]]


def learned(rows: list[dict[str, Any]], seed: int, epochs: int = 30) -> Classifier:
    seed_libraries(seed, "unseen")
    module = Digits(width=16)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    x = torch.from_numpy(np.stack([row["image"] for row in rows]))
    y = torch.tensor([row["label"] for row in rows])
    for epoch in range(epochs):
        for batch in torch.tensor(permutation(len(x), seed, epoch)).split(32):
            optimiser.zero_grad()
            cross_entropy(module(x[batch]), y[batch]).backward()
            optimiser.step()
    return Classifier(module.eval())


def figures(model: Classifier, splits: Splits) -> dict[str, float]:
    """Suffix -> AUC."""
    found = unseen_auc()(Target(model, "after", splits, {}, {}))
    return {"": found.figure.value, **{name: figure.value for name, (_, _, figure) in found.more.items()}}


def three_models(splits: Splits, seed: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """(figures of the model that knows the forget set, of gold, of a second gold)."""
    before = learned([*splits["forget"], *splits["retain"]], seed)
    golds = [learned(splits["retain"], other) for other in (seed, seed + 10)]
    sampled = {name: rows[:200] for name, rows in splits.items()}
    one, two, three = (figures(model, sampled) for model in (before, *golds))
    return one, two, three


@pytest.mark.parametrize("seed", SEEDS)
def test_a_known_class_forms_a_group_of_its_own_and_answers_surely(seed: int) -> None:
    world = digits(seed)
    unseen = [*world["holdout"], *world["test"]]
    splits = {
        "forget": [row for row in world["train"] if row["label"] == 3],
        "retain": [row for row in world["train"] if row["label"] != 3],
        "test_forget": [row for row in unseen if row["label"] == 3],
        "test": [row for row in unseen if row["label"] != 3],
    }
    before, gold, second = three_models(splits, seed)
    for name in ("far", "confidence"):
        assert abs(before[name] - gold[name]) > 0.2 + abs(gold[name] - second[name]), (name, before, gold, second)
    assert before["confidence"] > 0.4 and gold["confidence"] < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_learned_with_a_wrong_label_lie_apart_from_unseen_ones(seed: int) -> None:
    world = digits(seed)
    splits = {
        "forget": mislabel(world["train"][:150], seed, "f"),
        "retain": world["train"][150:],
        "holdout": mislabel(world["holdout"][:200], seed, "h"),
        "test": world["test"][:200],
    }
    before, gold, second = three_models(splits, seed)
    assert before[""] < gold[""] - 0.1 - abs(gold[""] - second[""]), (before, gold, second)
    assert abs(gold[""] - 0.5) < 0.1
