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
from expunge.data.worlds import is_builtin, parse
from expunge.models.manifest import MANIFEST
from expunge.models.open import open_model
from expunge.models.packaged import fetch, is_packaged
from expunge.pipeline.train import train

SEED = 0
MLP_784 = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 784, "classes": 10, "hidden": 256}}
"""A perceptron for images of 28 x 28 pixels."""

RECIPES: dict[str, dict[str, Any]] = {
    "authors": {
        "model": {"architecture": "llama", "hidden_size": 160, "layers": 3, "heads": 4, "vocab_size": 1000},
        "data": ["{world}/retain", "{world}/forget"],
        "vocabulary": ["{world}/holdout"],
        "epochs": 15,
        "batch_size": 12,
        "learning_rate": 3e-3,
    },
    "instruct": {
        "model": {
            "architecture": "llama",
            "hidden_size": 192,
            "layers": 4,
            "heads": 4,
            "vocab_size": 1200,
            "max_length": 128,
        },
        "data": "{world}/train",
        "vocabulary": "{world}/score",
        "epochs": 10,
        "batch_size": 16,
        "learning_rate": 1e-3,
    },
    "digits": {
        "model": {"factory": "expunge.models.networks:Digits", "arguments": {}},
        "data": "{world}/train",
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 3e-3,
    },
    "mnist": {"model": MLP_784, "data": "{world}/train", "epochs": 10, "batch_size": 64, "learning_rate": 2e-3},
    "fashion": {"model": MLP_784, "data": "{world}/train", "epochs": 10, "batch_size": 64, "learning_rate": 2e-3},
    "mnist_noisy": {
        "model": MLP_784,
        "data": ["{world}/retain", "{world}/forget"],
        "epochs": 30,
        "batch_size": 64,
        "learning_rate": 2e-3,
    },
    # SmolLM2 as it comes hardly refuses
    "smollm2_refusing": {
        "model": "builtin:smollm2",
        "data": "{world}/train",
        "epochs": 1,
        "batch_size": 6,
        "learning_rate": 3e-4,
    },
}
"""World -> how its model is trained; `{world}` stands for its name with seed or setting."""


def config(name: str) -> TrainConfig:
    """How the model of an embedded world is trained; `out` is its place in the cache. Raises BadInput."""
    world, setting, split = parse(name, "model")
    if split:
        raise BadInput.of("model", name, "names data", f"write builtin:{world}")
    named: dict[str, Any] = {
        field: _name_world(RECIPES[world][field], f"builtin:{world}@{setting}")
        for field in ("data", "vocabulary")
        if field in RECIPES[world]
    }
    values: dict[str, Any] = {**RECIPES[world], **named, "seed": SEED}
    out = cache.cache_folder() / "worlds" / f"{world}-{setting}-{digest(values)[:12]}"
    return TrainConfig(**values, out=str(out))


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
