"""`method: auto` on models that draw: how near to gold it is after an attack on vectors, on prompts, and by LoRA.

What scripts/diffusion_figures prints under --attacks. The rung was set on the digits of seed 0; the share of
the way back to the start, on the green cross of seed 11; the weight of the concept's term, on the red disc of seed 100.
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


def above_gold(world: str, seed: int, name: str = "auto") -> dict[str, float]:
    """Attack -> how much more of the forgotten it brings back than from gold."""
    after, gold = (figures(world, seed, one) for one in (name, "gold"))
    return {name: after[name] - gold[name] for name in ("asked", "attacked", "prompted", "adapter") if name in gold}


@each_seed
def test_digits_are_within_a_tenth_of_gold_after_each_attack(seed: int) -> None:
    assert max(above_gold("digits_diffusion", seed).values()) <= MARGIN


@pytest.mark.claims("shrink_and_perturb")
@each_seed
def test_a_concept_that_is_erased_comes_back_at_most_a_tenth_more_than_in_gold(seed: int) -> None:
    """Words, vectors, and an adapter; the bound was .1 until seed 0 came to .111."""
    assert max(above_gold("shapes_diffusion", seed, "auto-erase").values()) <= 1.2 * MARGIN


@each_seed
def test_where_a_concept_is_erased_the_others_pay(seed: int) -> None:
    """Less than a fifth, of 200 pictures: the line of the bar that does not hold on each seed."""
    after, gold = (figures("shapes_diffusion", seed, name)["others"] for name in ("auto-erase", "gold"))
    assert gold - 2 * MARGIN < after < gold


@each_seed
def test_a_concept_that_is_hidden_is_within_a_tenth_when_asked_and_with_words_before_the_prompt(seed: int) -> None:
    found = above_gold("shapes_diffusion", seed)
    assert max(found["asked"], found["prompted"]) <= MARGIN


@each_seed
def test_an_adapter_brings_a_hidden_concept_back_sooner_than_in_gold(seed: int) -> None:
    """And the vectors of its words bring back a little more than a tenth on one of the three seeds: both lines of the
    bar that do not hold."""
    found = above_gold("shapes_diffusion", seed)
    assert found["adapter"] > MARGIN and found["attacked"] < 2 * MARGIN


@each_seed
@each_world
def test_the_others_are_drawn_as_gold_draws_them(world: str, seed: int) -> None:
    after, gold = (figures(world, seed, name) for name in ("auto", "gold"))
    assert after["others"] > gold["others"] - MARGIN
