"""Steps between checkpoints, worked out by hand."""

from __future__ import annotations

import pytest

from expunge.training.pace import checkpoint_every


@pytest.mark.parametrize(
    ("moving", "parameters", "tokens", "every"),
    [
        (58_000_000, 58_000_000, 1653, 4),  # 696 MB in 1.74 s; a step takes 9.59 s
        (58_000_000, 58_000_000, 64, 94),  # a step takes 0.37 s
        (600_000, 58_000_000, 64, 2),  # an adapter: 18 ms; a step takes 0.25 s
    ],
)
def test_checkpoints_take_a_twentieth_of_the_training(moving: int, parameters: int, tokens: int, every: int) -> None:
    assert checkpoint_every(moving, parameters, tokens, 32, "cpu") == every


def test_images_say_nothing_about_their_work() -> None:
    assert checkpoint_every(25_000_000, 25_000_000, 64, 64, "cpu") == 1
