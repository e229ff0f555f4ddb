"""Trees from sums of histograms: bins, cuts, splits and leaves worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.methods.trainers import pax
from expunge.models.build import fresh


def test_a_party_has_bins_by_its_share_of_the_largest_one_s_rows() -> None:
    assert pax.bins_of({"a": 1000, "b": 250, "c": 3}, 64) == {"a": 64, "b": 16, "c": 2}


def test_bins_hold_as_many_rows_and_never_divide_one_value() -> None:
    """Eight rows in two bins of four; five equal ones stay together."""
    (values, counts), (others, sizes) = pax.sketch(np.array([[i, max(i, 4)] for i in range(8)]), 2)
    assert values.tolist() == [0, 4] and counts.tolist() == [4, 4]
    assert others.tolist() == [4, 5] and sizes.tolist() == [5, 3]


def test_cuts_are_the_values_at_which_some_party_s_bin_begins() -> None:
    """Parties with bins from 0 and 4, and from 1 and 9: rows under 1, 4 and 9 are told apart; two bins part at 4."""
    sketches = [[(np.array([0.0, 4.0]), np.array([4, 4]))], [(np.array([1.0, 9.0]), np.array([1, 1]))]]
    assert pax.cuts_of(sketches, 8)[0].tolist() == [1.0, 4.0, 9.0]
    assert pax.cuts_of(sketches, 2)[0].tolist() == [4.0], "of ten rows five lie under 4"


def test_the_split_of_most_gain_by_hand() -> None:
    """Column 0: G = (-2, 2), H = (1, 1): 4/2 + 4/2 - 0 = 4. Column 1 gains less: G = (-1, 1): 1. With a least Hessian
    of 2 nothing may be split."""
    g_FB, h_FB = np.array([[-2.0, 2.0], [-1.0, 1.0]]), np.ones((2, 2))
    found = pax.best_split(g_FB, h_FB, shrinkage=1.0, least_weight=1.0)
    assert found is not None and (found.column, found.last, found.gain) == (0, 0, 4.0)
    assert found.sums == ((-2.0, 1.0), (2.0, 1.0))
    assert pax.best_split(g_FB, h_FB, shrinkage=1.0, least_weight=2.0) is None


def test_a_round_of_two_parties_is_xgboost_s_tree_by_hand(tmp_path: Path) -> None:
    """Six rows at p = 1/2: three under 3 of label 0, three of label 1. Leaves are rate G / (H + 1) = .5 * 1.5 / 1.75,
    and both parties' sums make the split; the margins of the written booster are the leaves."""
    pytest.importorskip("xgboost")
    data = [{"features": [float(i)], "label": int(i >= 3), "client": i % 2} for i in range(6)]
    model, context = fresh({"trees": "xgboost", "classes": 2}, data, 0), Context(Budget(epochs=1), tmp_path, 0, "train")
    trained = pax.train(model, data, context, depth=1, rate=0.5, least_weight=0.0, bins=8)
    margins = trained.module(torch.arange(6.0)[:, None])[:, 1]
    leaf = 0.5 * 1.5 / 1.75
    assert margins.tolist() == pytest.approx([-leaf] * 3 + [leaf] * 3)
    assert context.notes["outcome"]["federation"]["bytes_up"] == 2 * 2 * 6 * 8, "two parties, two sums, six bins"
