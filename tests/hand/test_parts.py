"""The cutting of a step into parts, worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from expunge.training.parts import Cutting, Place


def places(*lengths: int) -> list[Place]:
    return [Place(2, length) for length in lengths]


@pytest.mark.parametrize(
    ("lengths", "overhead", "parts"),
    [
        ((9, 3, 9, 3), 10, [[1, 3], [0, 2]]),  # 12 + 36 + 20 = 68; whole: 72 + 10 = 82
        ((9, 3, 9, 3), 25, [[0, 1, 2, 3]]),  # 48 + 50 = 98 against 97
        ((5, 5, 5), 1, [[0, 1, 2]]),  # nothing is padded
        ((1, 2, 4, 8), 0.5, [[0], [1], [2], [3]]),
        ((1, 2, 4, 8), 4.5, [[0, 1], [2], [3]]),  # 8 + 8 + 16 + 13.5 = 45.5; [0], [1, 2], [3]: 47.5
        ((), 1, [[]]),
    ],
)
def test_a_batch_is_cut_where_padding_and_overhead_cost_least(
    lengths: tuple[int, ...], overhead: float, parts: list[list[int]]
) -> None:
    assert Cutting(overhead).cut(places(*lengths)) == parts


def test_a_part_has_as_many_places_as_are_given_at_most() -> None:
    assert Cutting(math.inf, 2).cut(places(9, 5, 9, 3, 4)) == [[3, 4], [0, 1], [2]]


def test_a_large_batch_is_cut_at_few_places() -> None:
    """Of 640 places one in ten is tried; the cut comes to the two lengths all the same."""
    parts = Cutting(20.0).cut(places(*(4 for _ in range(320)), *(40 for _ in range(320))))
    assert [len(part) for part in parts] == [320, 320]


def test_rows_that_were_dropped_cost_nothing() -> None:
    assert Cutting(10.0).cut([Place(0, 0), Place(1, 9), Place(2, 9)]) == [[0, 1, 2]]


def test_the_overhead_follows_from_shapes() -> None:
    """A block takes 2 ms to launch on a CPU; a token of 58 M parameters 5.8 ms, of 1.2 M parameters 0.12 ms."""

    def model(size: int, layers: int) -> Any:
        module = torch.nn.Linear(size, 1000, bias=False, device="meta")
        return SimpleNamespace(module=module, blocks=[""] * layers, coupled=False)

    large, small = Cutting.of(model(58_000, 8), None), Cutting.of(model(1_200, 4), None)
    assert (large.overhead, small.overhead) == pytest.approx((16 + 2.759, 16 + 66.67), rel=1e-3)


def test_every_process_has_a_share_of_every_part() -> None:
    """Three processes: no part has fewer than three places, though cutting off the last alone would cost least."""
    parts = Cutting(1.0, least=3).cut(places(2, 2, 2, 2, 2, 2, 2, 90))
    assert [len(part) for part in parts] == [3, 5]
