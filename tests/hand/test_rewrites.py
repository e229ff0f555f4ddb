"""Safe LoRA, LoX and RESTA by hand: what each writes of a change, given where the training began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Method, Model
from expunge.core.errors import BadInput
from expunge.methods.compose import compose
from expunge.methods.wrappers._change import leading, project
from expunge.methods.wrappers.lox import lox
from expunge.methods.wrappers.resta import resta
from expunge.methods.wrappers.safe_lora import safe_lora
from expunge.models.build import fresh
from expunge.models.weights import snapshot

DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}


def run(make: Any, folder: Path, change: float = 0.1, **options: Any) -> dict[str, dict[str, Tensor]]:
    """The weights of start (seed 5), before (seed 1), after an inner method that adds noise, and as written."""
    model, first = fresh(DIGITS, [], 1), fresh(DIGITS, [], 5)
    kept: dict[str, dict[str, Tensor]] = {"start": dict(snapshot(first.module))}

    def disturb(model: Model, splits: Mapping[str, Any], context: Context) -> Model:
        generator = torch.Generator().manual_seed(0)
        kept["before"] = {name: value.clone() for name, value in snapshot(model.module).items()}
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter += change * torch.randn(parameter.shape, generator=generator)
        kept["after"] = {name: value.clone() for name, value in snapshot(model.module).items()}
        return model

    context = Context(Budget(), folder, manifest={"model": DIGITS, "seed": 5})
    written = make(inner=Method(disturb), **options)(model, {"forget": []}, context)
    return {**kept, "written": dict(snapshot(written.module))}


def matrices(found: dict[str, dict[str, Tensor]]) -> list[str]:
    return [name for name, value in found["before"].items() if value.dim() > 1]


def test_a_projection_keeps_what_lies_along_the_leading_directions() -> None:
    """diag(3, 1): of any matrix the first row is left at rank 1, both at rank 2."""
    vector, weight = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 2.0], [4.0, 5.0]])
    assert torch.allclose(project(weight, leading(vector, 1)), torch.tensor([[1.0, 2.0], [0.0, 0.0]]), atol=1e-6)
    assert torch.allclose(project(weight, leading(vector, 2)), weight, atol=1e-6)


def test_safe_lora_projects_the_changes_that_lie_across(tmp_path: Path) -> None:
    found = run(safe_lora, tmp_path, threshold=1.0, rank=2)
    for name, old in found["before"].items():
        change, learned = found["after"][name] - old, old - found["start"][name]
        wanted = project(change, leading(learned, 2)) if name in matrices(found) else change
        assert torch.allclose(found["written"][name], old + wanted, atol=1e-5), name
    lax = run(safe_lora, tmp_path / "lax", threshold=0.01, rank=2)
    assert all(torch.allclose(lax["written"][name], value) for name, value in lax["after"].items()), "all lie along"


def test_lox_adds_the_low_rank_part_of_what_was_learned(tmp_path: Path) -> None:
    found = run(lox, tmp_path, alpha=0.5, rank=3)
    for name, new in found["after"].items():
        learned = found["before"][name] - found["start"][name]
        wanted = 0.5 * project(learned, leading(learned, 3)) if name in matrices(found) else torch.zeros_like(new)
        assert torch.allclose(found["written"][name], new + wanted, atol=1e-5), name


def test_resta_adds_what_was_learned_and_thins_out_the_change(tmp_path: Path) -> None:
    whole = run(resta, tmp_path / "whole", gamma=0.5, drop=0.0)
    for name, new in whole["after"].items():
        learned = whole["before"][name] - whole["start"][name]
        assert torch.allclose(whole["written"][name], new + 0.5 * learned, atol=1e-6), name
    thin = run(resta, tmp_path / "thin", gamma=0.0, drop=0.6)
    large = max(matrices(thin), key=lambda name: thin["before"][name].numel())
    change, kept = (thin[role][large] - thin["before"][large] for role in ("after", "written"))
    dropped = kept.abs() < 1e-9
    assert float(dropped.float().mean()) == pytest.approx(0.6, abs=0.1)
    assert torch.allclose(kept[~dropped], change[~dropped] / 0.4, atol=1e-5), "rescaled"


@pytest.mark.parametrize("name", ["safe_lora", "lox", "resta"])
def test_the_start_must_be_known(name: str, tmp_path: Path) -> None:
    method = compose(name).method
    with pytest.raises(BadInput, match=rf"method\.{name}\.start: is missing, and no manifest says"):
        method.fits(fresh(DIGITS, [], 1), {}, None)
    with pytest.raises(BadInput, match="none"):
        compose({name: {"start": str(tmp_path / "none")}}).method.fits(fresh(DIGITS, [], 1), {}, None)


def test_a_given_share_is_written_and_needs_no_retain_data(tmp_path: Path) -> None:
    method = compose({"wise_ft": {"inner": "ga", "share": 0.5}}).method
    assert method.fits(fresh(DIGITS, [], 1), {"forget": []}, None) == []
    with pytest.raises(BadInput, match="wise_ft looks for its share on it"):
        compose({"wise_ft": {"inner": "ga"}}).method.fits(fresh(DIGITS, [], 1), {"forget": []}, None)
