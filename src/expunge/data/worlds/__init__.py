"""Embedded worlds: small data sets made by us, so that a demo and the tests need no download.

A name is `builtin:WORLD[@SETTING]/SPLIT`: `builtin:authors/forget`, `builtin:authors@3/holdout`
(the authors world of seed 3), `builtin:digits/test`, `builtin:instruct@0.5/score` (entanglement 0.5). A hyphen in a
world's name is as good as its underscore.
A world is one file: the function of its name makes the splits, TRAINING says how its model is trained.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any, TypeGuard

from expunge.core.errors import BadInput, did_you_mean


def world_names() -> list[str]:
    """Names of the worlds: the folder's listing."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def is_builtin(source: object) -> TypeGuard[str]:
    """Whether a request's model or data are an embedded world's, by name."""
    return isinstance(source, str) and source.startswith("builtin:")


DIALS = {"instruct": 1.0}
"""Worlds whose setting is a dial from 0 to 1, with its default; the others' is a seed."""


def parse(name: str, field: str) -> tuple[str, int | float, str]:
    """(world, seed or dial, split) of a builtin name; split is empty for a model. Raises BadInput."""
    world, _, split = name.removeprefix("builtin:").partition("/")
    world, _, setting = world.partition("@")
    world = world.replace("-", "_")
    if world not in world_names():
        raise BadInput.of(field, name, "is not an embedded world", did_you_mean(world, world_names()))
    if world in DIALS:
        return world, _dial(setting, DIALS[world], name, field), split
    if setting and not setting.isdigit():
        raise BadInput.of(field, name, "has a setting that is not a seed", f"write builtin:{world}@1")
    return world, int(setting or 0), split


def _dial(setting: str, default: float, name: str, field: str) -> float:
    try:
        value = float(setting or default)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadInput.of(
            field, name, "has a setting that is not an entanglement", "write a number from 0.0 to 1.0 after the @"
        )
    return value


@functools.lru_cache(maxsize=16)
def splits(world: str, seed: int | float) -> dict[str, list[dict[str, Any]]]:
    """Every split of a world."""
    return getattr(_module(world), world)(seed)


def training(world: str) -> dict[str, Any]:
    """How the model of a world is trained: fields of `train.yaml`, in which `{world}` is its name with the setting."""
    return dict(_module(world).TRAINING)


def _module(world: str) -> Any:
    return importlib.import_module(f"expunge.data.worlds.{world}")


def world(name: str, field: str) -> list[dict[str, Any]]:
    """The examples that a builtin name stands for. Raises BadInput."""
    which, seed, split = parse(name, field)
    found = splits(which, seed)
    if split not in found:
        raise BadInput.of(field, name, "names no split", "known: " + ", ".join(f"builtin:{which}/{s}" for s in found))
    return [dict(row) for row in found[split]]
