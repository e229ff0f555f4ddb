"""Whom a federation asks, with which settings, and whose trees it takes: worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.errors import BadInput
from expunge.methods._rounds import Local
from expunge.methods.single_shot import Pair, Search, choose, search_of
from expunge.methods.strategies.private import Private, epsilon, share_of_noise
from expunge.methods.strategies.reweigh import Balance
from expunge.methods.strategies.tifl import TiFL, tifl
from expunge.methods.trainers.federated_boosting import merge
from expunge.models.trees import booster_of, grow
from expunge.training.updates import ClientUpdate

SIZES = {"a": 10, "b": 10, "c": 10, "d": 40}
"""Rows; at a pace of 3, b takes 30."""


def tiers(policy: str = "uniform", count: int = 2) -> TiFL:
    return TiFL(count, policy, {"b": 3.0}, every=1, rounds_each=2)


def test_tiers_are_groups_by_simulated_response_time() -> None:
    assert tiers().seconds(SIZES) == {"a": 10.0, "b": 30.0, "c": 10.0, "d": 40.0}
    assert tiers().tiers(SIZES) == [["a", "c"], ["b", "d"]]
    assert tiers(count=4).tiers(SIZES) == [["a"], ["c"], ["b"], ["d"]]
    with pytest.raises(BadInput, match="more than the 4 clients"):
        tiers(count=5).tiers(SIZES)


def test_a_round_takes_clients_of_the_tier_that_was_drawn() -> None:
    """A place below a half is of the first of two tiers; credits count under the adaptive policy alone."""
    places = {"tier": 0.75, "a": 0.2, "b": 0.9, "c": 0.1, "d": 0.3}

    def draw(name: str) -> int:
        return int(places[name] * 2**63)

    assert tiers().choose(SIZES, 1, draw) == ["d"] and tiers("fast").choose(SIZES, 2, draw) == ["c", "a"]
    adaptive = tiers("adaptive")
    assert [adaptive.choose(SIZES, 1, draw) for _ in range(4)] == [["d"], ["d"], ["c"], ["c"]]


def test_a_tier_that_got_no_better_gives_chances_to_the_worst() -> None:
    """Accuracies .9 and .5 after .9 and .4: the first tier, which was drawn, stood still: chances are 1/3 and 2/3."""
    adaptive = tiers("adaptive")
    for worst in (0.4, 0.5):
        adaptive.judge(1, SIZES, lambda names, worst=worst: 0.9 if "a" in names else worst)  # type: ignore[misc]
    assert adaptive.chances.tolist() == pytest.approx([1 / 3, 2 / 3])
    again = tiers("adaptive")
    again.load_state(adaptive.state())
    assert torch.equal(again.chances, adaptive.chances) and torch.equal(again.accuracies, adaptive.accuracies)
    assert tifl().averages


def test_the_chosen_setting_is_the_lowest_of_the_surrogate() -> None:
    """Client 1 loses least at .1, client 2 at .01 by far: pooled and mean choose .01, and so does the largest."""
    search = search_of({"sgd": [0.01, 0.1, 1.0]}, "local")
    assert search is not None and [local.sgd for local in search.candidates] == [0.01, 0.1, 1.0]
    losses = {"1": (0.6, 0.5, 3.0), "2": (0.5, 2.0, 3.0)}
    pairs = [
        Pair(name, local, loss)
        for name, own in losses.items()
        for local, loss in zip(search.candidates, own, strict=True)
    ] * 4
    for surrogate in ("pooled", "mean", "max"):
        assert choose(pairs, search.model_copy(update={"surrogate": surrogate}), 0) == Local(sgd=0.01)
    others = [pair for pair in pairs if pair.client == "1"]
    assert choose(others, search, 0) == Local(sgd=0.1), "the pairs of a client that left are gone"
    assert search_of({"sgd": 0.1}, "local") is None and search_of(2, "local") is None


def test_a_search_is_checked() -> None:
    with pytest.raises(BadInput, match="local"):
        search_of({"sgd": [0.1, -1.0]}, "local")
    assert len(Search(epochs=[1, 2], sgd=[0.1, 0.2]).candidates) == 4


@pytest.mark.parametrize("classes", [2, 3])
def test_merged_trees_are_the_sum_of_the_clients_by_their_shares(classes: int) -> None:
    """The margin after two rounds is the sum over clients and rounds of share times the tree's own margin."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0) * (classes - 2)
    rows = [{"features": row, "label": int(label)} for row, label in zip(x, y, strict=True)]
    several = {"objective": "multi:softprob", "num_class": 3} if classes > 2 else {"objective": "binary:logistic"}
    parameters = {**several, "base_score": 0.5, "max_depth": 2, "min_child_weight": 0, "eta": 1.0}
    parts = ((rows[:15], 0.25), (rows[15:], 0.75))

    def margins(raw: bytes) -> np.ndarray:
        return np.asarray(booster_of(raw).inplace_predict(x, predict_type="margin"), dtype=float)

    raw, base = b"", 0.5 if classes > 2 else 0.0
    expected = np.full_like(margins(grow(b"", rows, parameters, 1)), base)
    for _ in range(2):
        before = margins(raw) if raw else np.full_like(expected, base)
        grown = [(grow(raw, own, parameters, 1), share) for own, share in parts]
        expected = before + sum(share * (margins(one) - before) for one, share in grown)
        raw = merge(raw, grown)
        assert margins(raw) == pytest.approx(expected, abs=1e-5)
    assert booster_of(raw).num_boosted_rounds() == 4


def test_rows_weigh_so_that_group_and_label_are_independent() -> None:
    """Of men 3 rows of label 1 and 1 of 0, of women 1 and 3: 4 x 4 / (8 x 3) = 2/3 or 4 x 4 / (8 x 1) = 2."""
    counts = (("m", 1, 3), ("m", 0, 1), ("f", 1, 1), ("f", 0, 3))
    rows = [{"sex": group, "label": label} for group, label, count in counts for _ in range(count)]
    term = Balance("sex")
    run: Any = SimpleNamespace(rows=lambda name: range(8), examples=lambda name: rows)
    term.prepare(run)
    assert [term.weights[i] for i in range(8)] == pytest.approx([2 / 3] * 3 + [2.0] * 2 + [2 / 3] * 3)
    with pytest.raises(BadInput, match="no field of row 1"):
        Balance("age").prepare(run)


def test_noise_is_divided_by_the_root_of_the_honest_and_changes_are_cut() -> None:
    """Of a deviation of 6 and nine honest clients 2 each. A change of length 5 is cut to the clip of 1."""
    assert share_of_noise(6.0, 9) == 2.0 and share_of_noise(6.0, 0) == 6.0
    before, sent = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}
    strategy = Private(1.0, 0.0, 1.0, 0, 1e-5)
    assert strategy.protect(before, ClientUpdate("a", sent, 9), 1).weights["w"].tolist() == pytest.approx([0.6, 0.8])
    noisy = [Private(1.0, 1.0, 1.0, 0, 1e-5) for _ in range(2)]
    first, again = (one.protect(before, ClientUpdate("a", sent, 9), 1).weights["w"] for one in noisy)
    assert torch.equal(first, again)
    later = {"w": torch.ones(2)}
    moved = noisy[0].protect(later, ClientUpdate("a", {"w": sent["w"] + 1}, 9), 1).weights["w"] - 1
    assert (moved - first).abs().max() > 0.1, "another round, other noise"


def test_the_epsilon_is_the_least_over_the_orders() -> None:
    orders = np.linspace(1.001, 200, 200_000)
    least = (10 * orders / (2 * 2.0**2) + math.log(1e5) / (orders - 1)).min()
    assert epsilon(2.0, 10, 1e-5) == pytest.approx(least, rel=1e-4)
