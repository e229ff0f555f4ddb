"""Which columns a party leaves out, and which labels silos without any are given: worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.methods._rounds import state_of
from expunge.methods.trainers import fat, less_vfl, vertical
from expunge.models.build import fresh

LINEAR = {"factory": "expunge.models.networks:Linear", "arguments": {"inputs": 2, "classes": 2}}


def test_a_column_stays_if_its_part_exceeds_the_penalty() -> None:
    """Columns at right angles with deviations 1, 1 and 2 and weights 3, 1 and 1: their groups are 3, 1 and 2 on
    standardised columns, and half of the largest, 1.5, leaves the first and the last."""
    x_NF = np.array([[1, 1, 2], [1, -1, -2], [-1, 1, -2], [-1, -1, 2]], dtype=float)
    weights_CF = np.array([[3.0, 1.0, 1.0]])
    assert less_vfl.choose_columns(x_NF, weights_CF, 0.5).tolist() == [True, False, True]
    assert less_vfl.choose_columns(x_NF, weights_CF, 0.7).tolist() == [True, False, False]


def test_dropped_columns_have_weights_of_zero(tmp_path: Path) -> None:
    """The first party's second column is noise of a hundredth of the size: it is left out of the second training."""
    draw, x = np.random.default_rng(0), [float(k % 2) * 2 - 1 for k in range(64)]
    data = [{"features": [x[k], 0.01 * draw.normal(), x[k]], "label": k % 2} for k in range(64)]
    linear = {**LINEAR, "arguments": {"inputs": 3, "classes": 2}}
    context = Context(Budget(epochs=2, batch_size=16, learning_rate=0.5), tmp_path, 0, "train")
    model = less_vfl.train(fresh(linear, [], 0), data, context, parties=[2, 1], strength=0.5)
    told = context.notes["outcome"]["federation"]
    weight = dict(model.module.named_parameters())["head.weight"]
    assert weight[:, 0].abs().min() > 0.1
    assert told["bytes_up"] == 3 * 64 * 2 * 2 * 8, "a pass before and two after, two classes, two parties"
    assert told["columns"] == [0, 2] and weight[:, 1].abs().max() == 0


def test_no_mask_comes_twice_in_the_two_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that had two messages behind one mask could subtract them and see how a party's part moved."""
    drawn: list[bytes] = []

    def watched(values: np.ndarray, place: int, keys: Mapping[int, int], step: int) -> np.ndarray:
        drawn.append((hide(values, place, keys, step) - hide(values, place, {}, step))[0].tobytes())
        return hide(values, place, keys, step)

    hide = vertical.hide
    monkeypatch.setattr(vertical, "hide", watched)
    data = [{"features": [float(k % 2), 1.0], "label": k % 2} for k in range(32)]
    context = Context(Budget(epochs=2, batch_size=8, learning_rate=0.5), tmp_path, 0, "train")
    less_vfl.train(fresh(LINEAR, [], 0), data, context, parties=2)
    assert len(drawn) == 2 * 3 * 4 and len(set(drawn)) == len(drawn)


def test_silos_without_labels_keep_the_rows_of_which_the_model_is_sure() -> None:
    """Logits x and -x: at x = 2 a chance of .98, at .1 of .55. The row's own label, which is wrong, is not read."""
    model = fresh(LINEAR, [], 0)
    weights = {**state_of(model), "head.weight": torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), "head.bias": torch.zeros(2)}
    rows = [{"features": [x, 0.0], "label": 1} for x in (2.0, 0.1, -2.0)]
    found = fat.label_by(model, weights, {"a": rows, "b": rows[1:2]}, sure=0.9)
    assert {name: [row["label"] for row in own] for name, own in found.items()} == {"a": [0, 1]}
    assert [row["features"][0] for row in found["a"]] == [2.0, -2.0]


def test_silos_take_turns_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    """Two cycles of two rounds: the annotated, the others, the annotated. Labels of the others change nothing."""
    ends = []
    for wrong in (0, 1):
        data = [{"features": [float(k % 2) * 2 - 1, 0.0], "label": k % 2, "client": k % 4 // 2} for k in range(32)]
        data = [{**row, "label": wrong} if row["client"] == 1 else row for row in data]
        budget = Budget(batch_size=8, learning_rate=0.1)
        model, context = fresh(LINEAR, [], 0), Context(budget, tmp_path / str(wrong), 0, "train")
        given = {"annotated": [0], "cycles": 2, "rounds": 2, "sure": 0.5}
        ends.append(state_of(fat.train(model, data, context, **given)))
        told = context.notes["outcome"]["federation"]["participants"]
        assert told == [["0"], ["0"], ["1"], ["1"], ["0"], ["0"]]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    options = {"annotated": ["2"], "local": 1}
    with pytest.raises(BadInput, match="unknown client"):
        fat.check(model, data, **options)
