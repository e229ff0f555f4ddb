"""WiSE-FT by hand: the share of the change that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Method, Model
from expunge.data.worlds.digits import digits
from expunge.methods.wrappers.wise_ft import interpolate, wise_ft
from expunge.models.build import fresh
from expunge.training.stopping import figures

DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, Any]]]:
    rows = digits()["train"]
    forget = [row for row in rows if row["label"] == 3][:24]
    return {"forget": forget, "retain": [row for row in rows if row["label"] != 3][:96]}


@pytest.fixture
def model(splits: dict[str, list[dict[str, Any]]]) -> Model:
    """A small network that knows these rows."""
    rows = [*splits["forget"], *splits["retain"]]
    found = fresh(DIGITS, rows, 5)
    optimiser = torch.optim.AdamW(found.module.parameters(), lr=1e-2)
    for _ in range(60):
        found.forward(found.collate(rows)).nll.backward()
        optimiser.step()
        optimiser.zero_grad()
    return found


def test_the_ends_are_the_models_themselves() -> None:
    before, after = (
        {"w": torch.tensor([0.1, 3.0]), "n": torch.tensor(1)},
        {"w": torch.tensor([0.7, -1.0]), "n": torch.tensor(9)},
    )
    assert torch.equal(interpolate(before, after, 0.0)["w"], before["w"])
    assert torch.equal(interpolate(before, after, 1.0)["w"], after["w"])
    assert torch.allclose(interpolate(before, after, 0.25)["w"], torch.tensor([0.25, 2.0]))
    assert interpolate(before, after, 0.0)["n"] == 9


def test_so_much_of_a_destructive_change_is_kept_as_the_floor_allows(
    model: Model, splits: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    start = figures(model, splits["retain"])["accuracy"]

    def destroy(model: Model, splits: Mapping[str, Any], context: Context) -> Model:
        other = fresh(DIGITS, splits["retain"], 9).module.state_dict()
        model.module.load_state_dict(other)
        return model

    kept = {}
    for floor in (0.9, 0.5):
        folder = tmp_path / str(floor)
        folder.mkdir()
        weights = {name: value.clone() for name, value in model.module.state_dict().items()}
        context = Context(Budget(floor=floor, stop="none"), folder)
        changed = wise_ft(inner=Method(destroy))(model, splits, context)
        kept[floor] = context.notes["wise_ft"]["strength"]
        assert figures(changed, splits["retain"])["accuracy"] >= floor * start
        model.module.load_state_dict(weights)
    assert 0 < kept[0.9] <= kept[0.5] < 1.0, "the whole of it knows nothing"


def test_a_change_that_no_share_of_which_holds_the_floor_is_taken_back(
    model: Model, splits: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.module.state_dict().items()}

    def poison(model: Model, splits: Mapping[str, Any], context: Context) -> Model:
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.fill_(float("nan"))
        return model

    context = Context(Budget(floor=0.9, stop="none"), tmp_path)
    changed = wise_ft(inner=Method(poison), points=3)(model, splits, context)
    assert context.notes["wise_ft"] == {"strength": 0.0}
    assert all(torch.equal(value, before[name]) for name, value in changed.module.state_dict().items())
