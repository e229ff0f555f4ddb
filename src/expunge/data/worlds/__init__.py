"""Embedded worlds: small data sets made by us, so that a demo and the tests need no download.

A name is `builtin:WORLD[@SETTING]/SPLIT`: `builtin:authors/forget`, `builtin:authors@3/holdout`
(the authors world of seed 3), `builtin:digits/test`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from expunge.core.errors import BadInput, did_you_mean


def known() -> list[str]:
    """Names of the worlds: the folder's listing."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def parse(name: str, field: str) -> tuple[str, int, str]:
    """(world, seed, split) of a builtin name; split is empty for a model. Raises BadInput."""
    world, _, split = name.removeprefix("builtin:").partition("/")
    world, _, setting = world.partition("@")
    if world not in known():
        raise BadInput.of(field, name, "is no embedded world", did_you_mean(world, known()))
    if setting and not setting.isdigit():
        raise BadInput.of(field, name, "has a setting that is no seed", f"write builtin:{world}@1")
    return world, int(setting or 0), split


@functools.lru_cache(maxsize=16)
def splits(world: str, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Every split of a world."""
    module = importlib.import_module(f"expunge.data.worlds.{world}")
    return getattr(module, world)(seed)  # type: ignore[no-any-return]


def world(name: str, field: str) -> list[dict[str, Any]]:
    """The examples that a builtin name stands for. Raises BadInput."""
    which, seed, split = parse(name, field)
    found = splits(which, seed)
    if split not in found:
        raise BadInput.of(field, name, "names no split", "known: " + ", ".join(
            f"builtin:{which}/{s}" for s in found))  # fmt: skip
    return [dict(row) for row in found[split]]
