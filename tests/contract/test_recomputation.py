"""Gradient checkpointing recomputes layers, and changes no weight that a run ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import base, run

from expunge.core.budget import Budget
from expunge.core.errors import BadInput
from expunge.training.recomputation import check_recomputation

LORA = {"forget": "npo", "retain": "cross_entropy", "weights": "lora"}


def run_of(spec: Any, folder: Path, again: bool) -> tuple[dict[str, torch.Tensor], int]:
    """The weights after two steps, and how often the first layer was computed in training mode."""
    model, count = base("lm"), 0

    def hook(layer: torch.nn.Module, *_: Any) -> None:
        nonlocal count
        count += layer.training

    model.module.get_submodule(model.blocks[0]).self_attn.register_forward_hook(hook)
    budget = Budget(steps=2, batch_size=4, learning_rate=1e-2, floor=0.0, stop="none", precision="fp32")
    budget = budget.model_copy(update={"gradient_checkpointing": again})
    return run(spec, "lm", folder, model=model, budget=budget).weights, count


@pytest.mark.parametrize("spec", ["npo", "rmu", LORA], ids=["npo", "rmu", "lora"])  # rmu ends its forward at a layer
def test_layers_are_computed_again_and_the_weights_are_the_same(spec: Any, tmp_path: Path) -> None:
    kept, once = run_of(spec, tmp_path / "kept", False)
    again, twice = run_of(spec, tmp_path / "again", True)
    assert kept.keys() == again.keys() and twice > once
    assert all(torch.allclose(kept[name], again[name], atol=1e-6) for name in kept)
    start = base("lm").module.state_dict()
    assert spec is LORA or any(not torch.equal(kept[name], start[name]) for name in start)


def test_a_network_without_such_layers_is_refused() -> None:
    network = base("classifier").module
    check_recomputation(network, Budget())
    with pytest.raises(BadInput, match="gradient_checkpointing"):
        check_recomputation(network, Budget(gradient_checkpointing=True))
