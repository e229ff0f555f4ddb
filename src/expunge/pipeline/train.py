"""Trains a model and writes it with its manifest; trains gold models from such manifests."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from expunge.core import cache, processes
from expunge.core.card import Example
from expunge.core.context import Context, Log
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, Faults
from expunge.core.files import canonical, digest, new_folder, read_sealed, sweep, write_json, write_sealed
from expunge.core.request import plain, read_config
from expunge.core.train_config import TrainConfig
from expunge.core.variables import expand
from expunge.data.content import content_key
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.methods.training import BESIDE, check_trainer, homes_of, trainer_for, with_defaults
from expunge.models.build import check_spec, fresh
from expunge.models.manifest import MANIFEST, manifest_of, read_manifest
from expunge.pipeline.estimate import training_interval
from expunge.training import checkpoint


def train(config: TrainConfig | Mapping[str, Any], *, reporter: Reporter | None = None, resume: bool = False) -> Path:
    """Trains as `train.yaml` (or a mapping of its fields) says; `out` opens with from_pretrained and has the manifest.

    With `resume` a training that is finished is returned as it is. Raises BadInput before anything is written.
    """
    reporter = reporter or Silent()
    config = bound(config if isinstance(config, TrainConfig) else parse_training(config))
    check_spec(config.model, config.trust_code)
    out = Path(expand(config.out, "out"))
    finished = (out / MANIFEST).exists()
    if finished and not resume:
        raise BadInput.of("out", str(out), "already holds a trained model", "choose another folder")
    model, data = start(config)
    lineage = lineage_of(config, data, model)
    if finished and not _same_lineage(read_manifest(out), lineage):
        raise BadInput.of(
            "--resume", str(out), "holds the model of another train.yaml, or of other data", "choose another folder"
        )
    _check_trainer(config, model, data)
    trainer = trainer_for(config.exact or config.trainer, model)
    model.module.to(processes.device())
    work = work_folder(out)
    lock = work.with_suffix(".lock")
    with _lock(lock, out):
        if processes.main():
            tidy(out)
        if not (out / MANIFEST).exists():
            context = Context(config.budget, work, config.seed, "train", reporter=reporter, log=Log(None))
            context.checkpoint_every = training_interval(model, data, config.batch_size)
            rows = [[identity(row) for row in data], *([lineage["homes"]] if "homes" in lineage else [])]
            _begin(work, digest([config.model_dump(exclude={"out"}), *rows]), out, resume)
            trained = trainer(model, data, context)
            write(trained, out, lineage | account_of(context), work)
        checkpoint.clear(work)
        if processes.main():
            lock.unlink(missing_ok=True)
    return out


def _begin(work: Path, training: str, out: Path, resume: bool) -> None:
    """The work folder of this very training: kept on resume, else empty. Raises BadInput where another's lies there."""
    if not resume:
        checkpoint.clear(work)
    elif _read_started(work) not in (None, training):
        raise BadInput.of(
            "--resume",
            str(out),
            "is the training of another train.yaml or of other data, or damaged",
            "resume with the same, or start it anew without --resume",
        )
    if processes.main():
        write_sealed(work / STARTED, {"training": training})


def tidy(out: Path) -> None:
    """Deletes what a killed training left half-written beside its folder; only for whoever holds its lock."""
    for name in (out.name, work_folder(out).name):
        sweep(out.parent, name)


def _same_lineage(manifest: Mapping[str, Any], lineage: Mapping[str, Any]) -> bool:
    """Whether a manifest is of this training; those of earlier versions do not say with whom rows lay."""
    known = {key: value for key, value in lineage.items() if key != "homes" or key in manifest}
    return canonical({key: manifest.get(key) for key in known}) == canonical(known)


def start(config: TrainConfig) -> tuple[Model, list[Example]]:
    """The model with its first weights, and what it is to learn."""
    data = list(load(config.data, "data", config.columns))
    extra = load(config.vocabulary, "vocabulary", config.columns) if config.vocabulary else []
    return fresh(config.model, [*data, *extra], config.seed, config.trust_code), data


TRAINERS = ("exact", "trainer")
"""Fields that name a trainer."""


def parse_training(values: Any) -> TrainConfig:
    """A training from plain data, with the options of its trainer filled in. Raises BadInput with all faults."""
    faults, config = Faults(), None
    with faults:
        config = TrainConfig.parse(values)
    for field in TRAINERS:
        with faults:
            if isinstance(values, Mapping):
                with_defaults(plain({field: values.get(field)}, field)[field], field)
    faults.raise_any()
    assert config is not None
    return bound(config)


def read_training(path: str | Path, sets: dict[str, Any] | None = None) -> TrainConfig:
    """A training from a YAML or JSON file. Raises BadInput."""
    return parse_training(read_config(path, "train", sets))


def bound(config: TrainConfig) -> TrainConfig:
    """The configuration with the options of its trainer filled in. Raises BadInput."""
    faults, chosen = Faults(), {}
    for field in TRAINERS:
        with faults:
            chosen[field] = with_defaults(getattr(config, field), field)
    if config.exact and config.trainer:
        faults.add(BadInput.of("trainer", str(config.trainer), "is given together with exact", "leave one of them out"))
    faults.raise_any()
    return config.model_copy(update=chosen)


def _check_trainer(config: TrainConfig, model: Model, data: Sequence[Example]) -> None:
    """Raises BadInput where the trainer cannot be had on this model and these data, or would delete nothing exactly."""
    if chosen := config.exact or config.trainer:
        check_trainer(chosen, model, data)
    model.accepts("data", data)
    if not config.exact:
        return
    base = manifest_of(expand(config.model, "model")) if isinstance(config.model, str) else None
    known = {*((base or {}).get("hashes") or []), *((base or {}).get("contents") or [])}
    if seen := sum(not known.isdisjoint((identity(row)[:16], content_key(row)[:16])) for row in data):
        raise BadInput.of(
            "model",
            config.model,
            f"was itself trained on {seen} of these examples, so that no deletion could be exact",
            "start from a model that never saw them",
        )


STARTED = "started.json"
"""In the work folder: which training was begun there."""


def _read_started(work: Path) -> str | None:
    """The training that was begun there; None for none, "" where that cannot be read."""
    if not (work / STARTED).exists():
        return None
    return str((read_sealed(work / STARTED) or {}).get("training", ""))


def work_folder(out: Path) -> Path:
    """Where the training of `out` keeps its checkpoints."""
    return out.parent / f".{out.name}.training"


def _lock(path: Path, out: Path) -> contextlib.AbstractContextManager[Any]:
    """The training's lock, held by the first process. Raises BadInput where another holds it."""
    if not processes.main():
        return contextlib.nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(path).acquire(timeout=0)
    except Timeout:
        raise BadInput.of("out", str(out), "is in use by another process", "wait, or choose another folder") from None


def lineage_of(config: TrainConfig, data: Sequence[Example], model: Model) -> dict[str, Any]:
    """The manifest as far as it is known before training: what a gold model needs to know."""
    template = getattr(model, "template", None)
    return {
        "schema": 1,
        "model": config.model,
        "data": config.data,
        "columns": config.columns,
        "vocabulary": config.vocabulary,
        "hashes": [identity(row)[:16] for row in data],
        "contents": [content_key(row)[:16] for row in data],
        **homes_of({"exact": config.exact, "trainer": config.trainer}, data),
        "budget": config.budget.model_dump(exclude_unset=True),
        **({"exact": config.exact} if config.exact else {}),
        **({"trainer": config.trainer} if config.trainer else {}),
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "template": template.pattern if template else None,
    }


def account_of(context: Context) -> dict[str, Any]:
    """The rest of the manifest: what the training took, and on which machine: seconds alone do not compare."""
    device, outcome = processes.device(), context.notes["outcome"]
    passes = processes.sum_over_processes({name: float(count) for name, count in context.compute.positions().items()})
    return {
        "steps": outcome["steps"],
        "tokens": outcome["tokens"],
        **({"precision": outcome["precision"]} if "precision" in outcome else {}),  # of the stages of a scheme: none
        **({"federation": outcome["federation"]} if "federation" in outcome else {}),
        "passes": {name: round(count) for name, count in passes.items()},
        "seconds": round(outcome["seconds"], 2),
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1),
        },
        "python": platform.python_version(),
    }


def write(model: Model, out: Path, manifest: dict[str, Any], work: Path) -> None:
    """Model and manifest, in one rename; by the first process. In the cache with the digests of all files.

    work: the training's folder; what its trainer left under `beside` there goes with the model.
    """
    if processes.main():
        with new_folder(out) as folder:
            model.save(folder)
            if (work / BESIDE).is_dir():
                shutil.copytree(work / BESIDE, folder, dirs_exist_ok=True)
            write_json(folder / MANIFEST, manifest)
            if cache.holds(out):
                cache.seal(folder, out.relative_to(cache.cache_folder()).as_posix())
    processes.barrier()
