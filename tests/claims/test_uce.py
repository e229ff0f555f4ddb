"""The closed-form edit of what reads the prompt, on drawn shapes: what it takes depends on the model."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from loading import load_script

pytestmark = pytest.mark.slow  # a base and its gold take two minutes of one core for each seed
SEEDS = (0, 1, 2)


@functools.cache
def figures(seed: int, name: str) -> dict[str, Any]:
    found: dict[str, Any] = load_script("diffusion_figures").line_of("shapes_diffusion", seed, name)
    assert "error" not in found, found
    print(found)
    return found


def test_a_concept_is_hidden_at_best() -> None:
    """On each seed vectors that are learned anew bring back a fifth more than in gold, and the others lose less than a
    fifth. Asked, red discs are drawn less on the mean of the seeds, by a tenth at least, and not on each: these bounds
    were set after the runs, so that no card says it."""
    taken = []
    for seed in SEEDS:
        before, after, gold = (figures(seed, name) for name in ("before", "uce", "gold"))
        assert after["attacked"] > gold["attacked"] + 0.2
        assert after["others"] > before["others"] - 0.2
        taken.append(1 - after["asked"] / before["asked"])
    assert sum(taken) / len(SEEDS) > 0.1
