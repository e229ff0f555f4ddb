"""Frozen tensors, and what a user still learns: a class that the model never saw, and digits turned by 90 degrees.

The user is Adam at the world's own usage, on one of the two domains alone, with some tensors frozen or with none. How
much is learned is the fall of the denoising error on unseen pictures, as a share of the fall without frozen tensors.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.data.worlds.digits_diffusion import digits_diffusion
from expunge.methods.weights.freeze_guard import freeze_guard
from expunge.models.judges import Judges, judges_of
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

pytestmark = pytest.mark.slow  # a base and one without the class take two minutes of one core for each seed
SEEDS = (0, 1, 2)
CLASS = 3
STEPS, RATE, BATCH = 40, 5e-4, 32
SHARES = (0.2, 0.5)
"""The paper's script freezes a fifth of the tensors; the half is more than it tells of."""
DRAWN = 100
each_seed = pytest.mark.parametrize("seed", SEEDS)


def turned(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "image": np.ascontiguousarray(np.rot90(np.asarray(row["image"])))}


@functools.cache
def domains(seed: int) -> dict[str, tuple[list[Any], list[Any]]]:
    """Domain -> pictures to learn from, and unseen ones."""
    world = digits_diffusion(seed)
    unseen = [*world["holdout"], *world["test"]]
    own = tuple([row for row in rows if row["label"] == CLASS] for rows in (world["train"], unseen))
    others = tuple([turned(row) for row in rows if row["label"] != CLASS][:300] for rows in (world["train"], unseen))
    return {"illegal": (own[0], own[1]), "innocent": (others[0], others[1])}


@functools.cache
def folder(seed: int) -> Path:
    """The world's model, retrained without the class."""
    base = build(f"builtin:digits_diffusion@{seed}")
    gone = [row for row in digits_diffusion(seed)["train"] if row["label"] == CLASS]
    return gold(read_manifest(base), gone, open_on_cpu(str(base)))


@functools.cache
def judges(seed: int) -> Judges:
    world = digits_diffusion(seed)
    found = judges_of({"forget": world["train"], "retain": [], "holdout": world["holdout"]})
    assert found is not None and found.able
    return found


def adapt(seed: int, domain: str, frozen: frozenset[str]) -> Any:
    """The model after a user's steps on one domain."""
    model: Any = open_on_cpu(str(folder(seed)))
    rows, draw = domains(seed)[domain][0], np.random.default_rng(5)
    optimiser = torch.optim.Adam([p for name, p in model.module.named_parameters() if name not in frozen], lr=RATE)
    for step in range(STEPS):
        batch = [{**rows[i], "draw": step + 1} for i in draw.integers(len(rows), size=BATCH)]
        optimiser.zero_grad()
        model.forward(model.collate(batch)).nll.backward()
        optimiser.step()
    return model


@torch.no_grad()
def error(model: Any, rows: list[Any]) -> float:
    """The mean denoising error of these pictures, in nats."""
    return float(model.forward(model.collate(rows)).nll_B.mean())


def rate(model: Any, seed: int) -> float:
    """Share of votes for the class where it is asked for."""
    start = torch.randn(DRAWN, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    drawn = model.sample(start, torch.full((DRAWN,), CLASS))
    return float((judges(seed).classes(drawn) == CLASS).float().mean())


@functools.cache
def frozen_by_the_guard(seed: int, share: float) -> frozenset[str]:
    model: Any = open_on_cpu(str(folder(seed)))
    given = {"forget": domains(seed)["illegal"][0], "retain": domains(seed)["innocent"][0]}
    with tempfile.TemporaryDirectory() as place:
        context = Context(Budget(), Path(place), seed, "apply")
        freeze_guard(share=share)(model, given, context)
    return frozenset(context.notes["frozen"])


def all_but_vectors(seed: int) -> frozenset[str]:
    """Everything but the vectors of classes and times, and what takes them into the blocks."""
    names = [name for name, _ in open_on_cpu(str(folder(seed))).module.named_parameters()]
    return frozenset(name for name in names if not any(part in name for part in ("embedding", "time_emb_proj")))


@functools.cache
def figures(seed: int) -> dict[str, Any]:
    """Way of freezing -> (share of the illegal domain's learning that is left, of the innocent one's, rate of the
    class)."""
    untouched: Any = open_on_cpu(str(folder(seed)))
    start = {name: error(untouched, unseen) for name, (_, unseen) in domains(seed).items()}
    ways = {"none": frozenset[str](), **{str(share): frozen_by_the_guard(seed, share) for share in SHARES}}
    ways["all but vectors"] = all_but_vectors(seed)
    found: dict[str, Any] = {"before": rate(untouched, seed)}
    fall: dict[str, dict[str, float]] = {}
    for way, frozen in ways.items():
        models = {name: adapt(seed, name, frozen) for name in start}
        fall[way] = {name: start[name] - error(model, domains(seed)[name][1]) for name, model in models.items()}
        left = {name: fall[way][name] / fall["none"][name] for name in start}
        found[way] = (left["illegal"], left["innocent"], rate(models["illegal"], seed))
    print(seed, {way: np.round(value, 3).tolist() for way, value in found.items()})
    return found


@each_seed
def test_a_user_learns_the_class_that_the_model_never_saw(seed: int) -> None:
    assert figures(seed)["before"] < 0.3 < 0.6 < figures(seed)["none"][2]


@each_seed
def test_at_this_size_the_guard_keeps_nothing_from_a_user(seed: int) -> None:
    """The paper's share of frozen tensors, and one of half of them, leave nine tenths of what is learned, of the class
    as of the innocent domain: the tensors that stay free learn the same."""
    for share in SHARES:
        illegal, innocent, _ = figures(seed)[str(share)]
        assert illegal > 0.85 and innocent > 0.85


@each_seed
def test_what_halves_the_class_costs_the_innocent_domain_as_much(seed: int) -> None:
    """Frozen but for the vectors of classes and times, the class is drawn less than half as often; the innocent domain
    loses at least as much of its fall."""
    illegal, innocent, drawn = figures(seed)["all but vectors"]
    assert drawn < 0.5 * figures(seed)["none"][2] and innocent < illegal + 0.1
