"""A forest over a payment network and its banks: what each side says of a leaf, sums, noise, and XGBoost's answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.methods.trainers import joined_forest
from expunge.methods.trainers.joined_forest import Side, Splits, join
from expunge.methods.trainers.vertical import unmask
from expunge.models.build import fresh

TREE = Splits([(np.array([0]), np.array([0.5], np.float32)), (np.array([1, 1]), np.array([0.3, 0.6], np.float32))])
"""Column 0 under .5, then column 1 under .3 or .6: column 0 is the network's, column 1 a bank's."""


def rows(count: int = 12) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        {"features": x.tolist(), "label": int(x[0] > 0.5), "client": i % 3}
        for i, x in enumerate(draw.random((count, 2)).astype(np.float32))
    ]


def context(folder: Path, seed: int = 0) -> Context:
    return Context(Budget(epochs=1), folder, seed, "train")


def test_each_side_rules_out_leaves_and_both_leave_one() -> None:
    """Row (.2, .4): the network allows the two left leaves, the bank the second of the left and the first of the right;
    a value on a threshold goes right."""
    network, bank = Side(np.array([[0.2], [0.5]], np.float32), 0), Side(np.array([[0.4], [0.6]], np.float32), 1)
    here, there = network.permit(TREE).tolist(), bank.permit(TREE).tolist()
    assert here == [[True, True, False, False], [False, False, True, True]]
    assert there == [[False, True, True, False], [False, True, False, True]]
    assert (np.array(here) & there).sum(1).tolist() == [1, 1]


def test_the_sum_of_the_banks_messages_is_the_count_of_all_rows(tmp_path: Path) -> None:
    """Three banks without noise: labels by leaf as one place would count them; a message alone tells nothing of it."""
    data, own = rows(), [[row for row in rows() if row["client"] == k] for k in range(3)]
    sides = [join(own[k], 1, k, 3, 0.0, context(tmp_path)) for k in range(3)]
    messages = [bank.count(TREE, network.permit(TREE), 0) for network, bank in sides]
    expected = np.zeros((2, 4))
    for row in data:
        x, y = row["features"]
        expected[row["label"], 2 * (x >= 0.5) + (y >= (0.6 if x >= 0.5 else 0.3))] += 1
    assert unmask(messages).tolist() == expected.tolist() and expected.sum() == 12
    assert np.abs(unmask(messages[:1])).min() > 1e3


def test_each_bank_adds_a_share_of_the_noise(tmp_path: Path) -> None:
    """Three shares of 2 / sqrt(3) in 4,000 sums: a deviation of 2, to 5 %."""
    share = joined_forest.share_of_noise(2.0, 3)
    sides = [join(rows()[:1], 1, k, 3, share, context(tmp_path)) for k in range(3)]
    found = [unmask([bank.count(TREE, network.permit(TREE), i) for network, bank in sides]) for i in range(500)]
    assert share == pytest.approx(2 / math.sqrt(3)) and np.std(np.stack(found) - np.mean(found, 0)) == pytest.approx(
        2.0, rel=0.05
    )


def test_the_model_s_logit_is_the_mean_of_the_leaves_noisy_logits(tmp_path: Path) -> None:
    """Two trees of two levels, counted row by row; with noise other ones, and epsilon for one release in the notes."""
    pytest.importorskip("xgboost")
    data, start = rows(), fresh({"trees": "xgboost", "classes": 2}, rows(), 0)
    given = {"network": 1, "trees": 2, "depth": 2}
    made = context(tmp_path)
    model = joined_forest.train(start, data, made, **given)
    draw = np.random.default_rng(made.derive(joined_forest.NAME, "splits"))
    x = np.array([row["features"] for row in data], np.float32)
    flags, expected = np.array([row["label"] for row in data]), np.zeros(len(data))
    for _ in range(2):
        leaf = Side(x, 0).permit(Splits.draw(draw, 2, 2)).argmax(1)
        for i, place in enumerate(leaf):
            ones, zeros = flags[leaf == place].sum(), (1 - flags[leaf == place]).sum()
            expected[i] += math.log((ones + 1) / (zeros + 1)) / 2
    assert model.module(torch.tensor(x))[:, 1].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    told = made.notes["outcome"]["federation"]
    assert told["parties"] == 4 and told["bytes_up"] == 2 * 3 * 2 * 4 * 8 and told["privacy"]["epsilon"] is None
    noisy = joined_forest.train(start, data, made, noise=2.0, **given)
    assert noisy.module(torch.tensor(x)).tolist() != model.module(torch.tensor(x)).tolist()
    bound = made.notes["outcome"]["federation"]["privacy"]["epsilon"]
    assert bound == pytest.approx(1 / 8 + math.sqrt(2 * math.log(1e5)) / 2)


@pytest.mark.parametrize(
    ("options", "change", "why"),
    [
        ({}, {"features": [0.5, 1.5]}, "are not all between 0 and 1"),
        ({}, {"features": [0.5, math.nan]}, "are not all between 0 and 1"),
        ({"network": 2}, {}, "leaves the banks none of the 2 columns"),
        ({}, {"label": 2}, "cannot be told by a flag"),
        ({}, {"client": None}, "has no client"),
    ],
)
def test_what_it_cannot_take_is_refused(options: dict[str, Any], change: dict[str, Any], why: str) -> None:
    pytest.importorskip("xgboost")
    data = [*rows(), {**rows()[0], **change}]
    model = fresh({"trees": "xgboost"}, data, 0)
    with pytest.raises(BadInput, match=why):
        joined_forest.check(model, data, **{"network": 1, **options})


def test_one_bank_alone_is_refused() -> None:
    pytest.importorskip("xgboost")
    data = [{**row, "client": 0} for row in rows()]
    with pytest.raises(BadInput, match="number of banks"):
        joined_forest.check(fresh({"trees": "xgboost"}, data, 0), data, network=1)
