"""The precision that a budget stands for, by device and size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from expunge.training import precision
from expunge.training.precision import autocast, precision_of


@pytest.mark.parametrize(
    ("given", "parameters", "device", "able", "expected"),
    [
        ("auto", 20_000_000, "cpu", True, "bf16"),
        ("auto", 19_999_999, "cpu", True, "fp32"),
        ("auto", 20_000_000, "cpu", False, "fp32"),
        ("auto", 1000, "cuda", False, "bf16"),
        ("fp32", 20_000_000, "cuda", True, "fp32"),
        ("bf16", 1000, "cpu", False, "bf16"),
        (None, 20_000_000, "cuda", True, "fp32"),
    ],
)
def test_auto_is_bfloat16_where_it_pays(
    given: str | None, parameters: int, device: str, able: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision.processes, "device", lambda: torch.device(device))
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: able)
    assert precision_of(given, parameters) == expected


def test_a_forward_in_bfloat16_leaves_the_weights_alone() -> None:
    layer: Any = torch.nn.Linear(3, 2)
    with autocast("bf16"):
        out = layer(torch.ones(1, 3))
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
