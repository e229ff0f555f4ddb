"""`method: auto` on models that draw: within a tenth of gold after an attack on vectors, on prompts, and by LoRA.

What scripts/diffusion_figures prints under --attacks. The rung was set on the digits of seed 0.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from loading import load_script

pytestmark = pytest.mark.slow  # a base and its gold take two minutes of one core for each seed and world
SEEDS = (0, 1, 2)
MARGIN = 0.1
each_seed = pytest.mark.parametrize("seed", SEEDS)
each_world = pytest.mark.parametrize("world", ["digits_diffusion", "shapes_diffusion"])


@functools.cache
def figures(world: str, seed: int, name: str) -> dict[str, Any]:
    found: dict[str, Any] = load_script("diffusion_figures").line_of(world, seed, name, attacks=True)
    assert "error" not in found, found
    print(found)
    return found


@each_seed
@each_world
def test_after_each_attack_it_is_near_gold(world: str, seed: int) -> None:
    after, gold = (figures(world, seed, name) for name in ("auto", "gold"))
    far = {name: (after[name], gold[name]) for name in ("asked", "attacked", "prompted", "adapter") if name in gold}
    assert not {name: pair for name, pair in far.items() if pair[0] > pair[1] + MARGIN}


@each_seed
@each_world
def test_the_others_are_drawn_as_gold_draws_them(world: str, seed: int) -> None:
    after, gold = (figures(world, seed, name) for name in ("auto", "gold"))
    assert after["others"] > gold["others"] - MARGIN
