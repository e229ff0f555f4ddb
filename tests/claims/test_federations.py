"""Clients that leave a federation: one of eight planted a trigger, and gold is the federation trained without it.

The methods' defaults, which were looked at on the worlds' seed 100; the seeds here set nothing. Figures of all rounds:
scripts/federation_figures.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from expunge.data.worlds._pictures import file_of

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
WORLDS = ("digits_federation", "mnist_federation")
SCRIPT = Path(__file__).parents[2] / "scripts" / "federation_figures"
PICTURES = file_of("mnist").parent
CLEAN, TRIGGER = 0, 1
ENOUGH, LONG = 5, 15
"""Rounds after which a method is judged, and up to which the trigger is watched."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(world, seed) -> what scripts/federation_figures prints, made once."""
    loader = importlib.machinery.SourceFileLoader("federation_figures", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)
    known: dict[tuple[str, int], dict[str, Any]] = {}

    def measure(world: str, seed: int) -> dict[str, Any]:
        if (world, seed) not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EXPUNGE_PICTURES", str(PICTURES))
                known[world, seed] = script.measure(world, seed)
        return known[world, seed]

    return measure


each = pytest.mark.parametrize("seed", SEEDS)
each_world = pytest.mark.parametrize("world", WORLDS)


@each
@each_world
def test_the_trigger_is_planted_and_gold_does_not_know_it(measured: Any, world: str, seed: int) -> None:
    found = measured(world, seed)
    assert found["before"][TRIGGER] > 0.9 and found["gold"][TRIGGER] < 0.05


@each
@each_world
@pytest.mark.claims("erase_client")
def test_the_leaving_client_s_ascent_and_five_rounds_erase_the_trigger(measured: Any, world: str, seed: int) -> None:
    """After 5 rounds of 12: clean accuracy within 2 points of gold's, the trigger under .15, where it was over .9; it
    comes back a little in ten further rounds, and stays under .3. The radius does not bind: the early stop does it."""
    found = measured(world, seed)
    erased = found["erase_client"]
    clean, trigger = erased["rounds"][ENOUGH - 1]
    assert clean >= found["gold"][CLEAN] - 0.02
    assert trigger < 0.15
    assert max(each[TRIGGER] for each in erased["rounds"][ENOUGH - 1 : LONG]) < 0.3
    ascent = erased["notes"]["ascent"]
    assert ascent["stopped"] and ascent["moved"] < ascent["radius"] / 2


@each
@each_world
@pytest.mark.claims("go_on")
def test_the_controls_keep_more_of_the_trigger(measured: Any, world: str, seed: int) -> None:
    """Five rounds without the client, from the global model or without its last update, leave far more of the trigger
    than the erasure: the difference is more than .15."""
    found = measured(world, seed)
    erased = found["erase_client"]["rounds"][ENOUGH - 1][TRIGGER]
    for control in ("go_on", "go_on, last update dropped"):
        assert found[control]["rounds"][ENOUGH - 1][TRIGGER] > erased + 0.15


@each
@pytest.mark.claims("federaser")
def test_the_replay_is_nearest_to_gold_on_mnist(measured: Any, seed: int) -> None:
    """MNIST: five replayed rounds leave the trigger under .05 and clean accuracy within 3 points of gold's, at half of
    the rounds of a retraining."""
    found = measured("mnist_federation", seed)
    clean, trigger = found["federaser"]["end"]
    assert trigger < 0.05 and clean >= found["gold"][CLEAN] - 0.03
    assert found["federaser"]["notes"]["federation"]["rounds"] == 5
