"""Models by name: folders, hub names, embedded worlds, trained on first use, and packaged models, fetched then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock

from expunge.core import cache, processes
from expunge.core.contracts import Model, Reporter
from expunge.core.errors import BadInput
from expunge.core.files import delete, digest
from expunge.core.train_config import TrainConfig
from expunge.data.worlds import is_builtin, parse, training
from expunge.models.manifest import MANIFEST
from expunge.models.open import open_model
from expunge.models.packaged import fetch, is_packaged
from expunge.pipeline.train import train

SEED = 0
NETWORKS = "expunge.models.networks"
"""The module whose classes the trainings of worlds name as their networks."""


def config(name: str) -> TrainConfig:
    """How the model of an embedded world is trained; `out` is its place in the cache. Raises BadInput."""
    world, setting, split = parse(name, "model")
    if split:
        raise BadInput.of("model", name, "names data", f"write builtin:{world}")
    found = training(world)
    named: dict[str, Any] = {
        field: _name_world(found[field], f"builtin:{world}@{setting}")
        for field in ("data", "vocabulary")
        if field in found
    }
    values: dict[str, Any] = {**found, **named, "model": _model(found["model"]), "seed": SEED}
    out = cache.cache_folder() / "worlds" / f"{world}-{setting}-{digest(values)[:12]}"
    return TrainConfig(**values, out=str(out))


def _model(found: str | dict[str, Any]) -> str | dict[str, Any]:
    """The model of a training, in which a world names a network of `models/networks.py` by its class."""
    if isinstance(found, str) or "network" not in found:
        return found
    return {"factory": f"{NETWORKS}:{found['network']}", "arguments": found["arguments"]}


def package_of(name: str) -> str:
    """The packaged model that a builtin name is, or that its training starts from; empty where there is none."""
    source = name if is_packaged(name) or not is_builtin(name) else config(name).model
    return source if is_packaged(source) else ""


def _name_world(data: str | list[str], tag: str) -> str | list[str]:
    return data.format(world=tag) if isinstance(data, str) else [one.format(world=tag) for one in data]


def load(model: str | Path, *, trust_code: bool = False) -> Model:
    """The model in a folder (a run's `model/`, guards and ensembles included), or one by hub or builtin name.

    `load(folder).generate([{"question": "..."}])` answers as the model is meant to; a guarded folder opened with
    transformers alone is the bare model. Raises BadInput.
    """
    return open_model(folder_of(str(model)), trust_code)


def folder_of(source: str, reporter: Reporter | None = None) -> str:
    """The folder or hub name to open; an embedded world's model is built first, and a packaged one fetched."""
    if is_packaged(source):
        return processes.from_first(lambda: str(fetch(source, reporter)))
    return str(build(source, reporter)) if is_builtin(source) else source


def build(name: str, reporter: Reporter | None = None) -> Path:
    """The folder of the world's model, built if it is not there."""
    return train_once(config(name), reporter)


def train_once(config: TrainConfig, reporter: Reporter | None = None) -> Path:
    """The folder that this training writes: trained if it is not there, by one process at a time and alone."""
    return processes.from_first(lambda: _train_once(config, reporter))


def _train_once(config: TrainConfig, reporter: Reporter | None) -> Path:
    out = Path(config.out)
    if not is_trained(out):
        if cache.holds(out):
            cache.make_folder(out.parent.name)
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_suffix(".building")):
            if not is_trained(out):
                if cache.holds(out):  # damaged
                    delete(out)
                train(config, reporter=reporter, resume=True)
    return out


def is_trained(out: Path) -> bool:
    """Whether the folder holds a trained model; in the cache also whether it is whole and unchanged."""
    return cache.whole(out) if cache.holds(out) else (out / MANIFEST).is_file()
