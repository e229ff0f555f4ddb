"""Further bases of the same data: the training in a manifest, repeated with all data from another seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.cache import cache_folder
from expunge.core.contracts import Reporter
from expunge.core.errors import BadInput
from expunge.core.files import digest
from expunge.core.train_config import TrainConfig
from expunge.models.manifest import MANIFEST, manifest_of
from expunge.pipeline.worlds import folder_of, train_once

BUDGET = ("epochs", "batch_size", "micro_batch_size", "weight_decay", "warmup")
"""Fields of a manifest's budget that train.yaml has too."""
TRAINING = ("model", "data", "columns", "vocabulary", "learning_rate", "exact", "trainer")


def training_of(model: str) -> dict[str, Any]:
    """The manifest of a model that can be trained again from other seeds. Raises BadInput."""
    manifest = manifest_of(model)
    if not manifest or not manifest.get("data"):
        why = f"has no training manifest ({MANIFEST}) that names its data, by which --bases trains further bases"
        raise BadInput.of("model", model, why, "give one that `expunge train` made, or leave --bases out")
    return manifest


def train_base(model: str, number: int, trust_code: bool = False, reporter: Reporter | None = None) -> Path:
    """The folder of a model that was trained as `model` was, from its seed plus `number`; cached. Raises BadInput."""
    return train_once(base_config(training_of(folder_of(model, reporter)), number, trust_code), reporter)


def base_config(manifest: Mapping[str, Any], number: int, trust_code: bool = False) -> TrainConfig:
    """The training of a manifest from its seed plus `number`; `out` is its place in the cache."""
    values = {name: manifest[name] for name in TRAINING if manifest.get(name) is not None}
    values |= {name: manifest["budget"][name] for name in BUDGET if manifest["budget"].get(name) is not None}
    values |= {"seed": int(manifest["seed"]) + number, "trust_code": trust_code}
    return TrainConfig(**values, out=str(cache_folder() / "bases" / f"base-{digest(values)[:16]}"))
