"""The embedded worlds' models: built by ordinary training on first use, and cached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock

from expunge.core.cache import cache_folder, holds, make_folder, whole
from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput
from expunge.core.files import delete, digest
from expunge.core.train_config import TrainConfig
from expunge.data.worlds import parse
from expunge.models.manifest import MANIFEST
from expunge.pipeline.train import train

SEED = 0


def config(name: str) -> TrainConfig:
    """How the model of an embedded world is trained; `out` is its place in the cache."""
    world, seed, split = parse(name, "model")
    if split:
        raise BadInput.of("model", name, "names data", f"write builtin:{world}")
    tag = f"builtin:{world}@{seed}"
    if world == "authors":
        values: dict[str, Any] = {
            "model": {"architecture": "llama", "hidden_size": 160, "layers": 3, "heads": 4, "vocab_size": 1000},
            "data": [f"{tag}/retain", f"{tag}/forget"],
            "vocabulary": [f"{tag}/holdout"],
            "epochs": 15,
            "batch_size": 12,
            "learning_rate": 3e-3,
        }
    elif world == "instruct":
        values = {
            "model": {
                "architecture": "llama",
                "hidden_size": 192,
                "layers": 4,
                "heads": 4,
                "vocab_size": 1200,
                "max_length": 128,
            },
            "data": f"{tag}/train",
            "vocabulary": f"{tag}/score",
            "epochs": 10,
            "batch_size": 16,
            "learning_rate": 1e-3,
        }
    else:
        values = {
            "model": {"factory": "expunge.models.networks:Digits", "arguments": {}},
            "data": f"{tag}/train",
            "epochs": 20,
            "batch_size": 32,
            "learning_rate": 3e-3,
        }
    values |= {"seed": SEED}
    out = cache_folder() / "worlds" / f"{world}-{seed}-{digest(values)[:12]}"
    return TrainConfig(**values, out=str(out))


def build(name: str, reporter: Reporter | None = None) -> Path:
    """The folder of the world's model, built if it is not there."""
    return made(config(name), reporter)


def made(config: TrainConfig, reporter: Reporter | None = None) -> Path:
    """The folder that this training writes: trained if it is not there, by one process at a time."""
    out = Path(config.out)
    if not trained(out):
        if holds(out):
            make_folder(out.parent.name)
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_suffix(".building")):
            if not trained(out):
                if holds(out):  # damaged
                    delete(out)
                train(config, reporter=reporter, resume=True)
    return out


def trained(out: Path) -> bool:
    """Does the folder hold a trained model; in the cache also: is it whole and unchanged since it was written."""
    return whole(out) if holds(out) else (out / MANIFEST).is_file()
