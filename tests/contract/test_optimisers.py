"""AdamW with its moments elsewhere: the same steps, or nearly; and SGD."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models import Break, base, run, same
from torch import Tensor, nn

from expunge.core.budget import Budget
from expunge.training.optimisers import optimiser_of


def weights_of(optimizer: str, folder: Path, at: Break = None) -> dict[str, Tensor]:
    """The weights after four steps."""
    budget = Budget(steps=4, batch_size=4, learning_rate=1e-3, floor=0.0, stop="none", precision="fp32")
    return run(
        "npo", "lm", folder / optimizer, at=at, budget=budget.model_copy(update={"optimizer": optimizer})
    ).weights


def test_moments_in_the_host_s_memory_change_no_bit(tmp_path: Path) -> None:
    ours, plain = weights_of("adamw_offloaded", tmp_path), weights_of("adamw", tmp_path)
    start = base("lm").module.state_dict()
    assert same(ours, plain) and any(not torch.equal(plain[name], start[name]) for name in start)


def test_moments_in_8_bits_move_the_weights_alike(tmp_path: Path) -> None:
    start = base("lm").module.state_dict()
    ours, plain = (
        torch.cat([(weights[name] - start[name]).flatten() for name in start if name in weights])
        for weights in (weights_of("adamw_8bit", tmp_path), weights_of("adamw", tmp_path))
    )
    assert not torch.equal(ours, plain) and torch.cosine_similarity(ours, plain, 0) > 0.95


def test_two_steps_of_sgd_gather_momentum() -> None:
    """From 1 along a gradient of 2 at a rate of .1: 1 - .2 = .8, then .8 - .1 (.9 x 2 + 2) = .42; a decay of .5 adds
    half the weight to the gradient: 1 - .1 x 2.5 = .75."""
    for decay, expected in ((0.0, [0.8, 0.42]), (0.5, [0.75])):
        weight = nn.Parameter(torch.ones(1))
        sgd = optimiser_of([weight], 0.1, decay, Budget(optimizer="sgd"))
        for value in expected:
            weight.grad = torch.full((1,), 2.0)
            sgd.step()
            assert weight.item() == pytest.approx(value)


@pytest.mark.parametrize("optimizer", ["adamw_offloaded", "adamw_8bit", "sgd"])
def test_a_resumed_run_ends_with_the_same_weights(optimizer: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        weights_of(optimizer, tmp_path / "broken", at=4)
    assert same(weights_of(optimizer, tmp_path / "broken"), weights_of(optimizer, tmp_path / "whole"))
