"""AdamW with its moments elsewhere: the same steps, or nearly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models import Break, base, run, same
from torch import Tensor

from expunge.core.budget import Budget


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


@pytest.mark.parametrize("optimizer", ["adamw_offloaded", "adamw_8bit"])
def test_a_resumed_run_ends_with_the_same_weights(optimizer: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        weights_of(optimizer, tmp_path / "broken", at=4)
    assert same(weights_of(optimizer, tmp_path / "broken"), weights_of(optimizer, tmp_path / "whole"))
