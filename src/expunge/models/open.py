"""Opens a model as a model: a hub name, a folder, a PEFT adapter, or a factory with weights.

Nothing here unpickles: a folder that holds only pickle weights is refused. Code that comes with a model runs with the
request's leave alone (`trust_code`), whatever the folder says of itself.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge.core import processes
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.models import schemas
from expunge.models._folder import check_folder, check_whole, foreign
from expunge.models._pretrained import config_of, open_pretrained, tokenizer_of
from expunge.models.adapters import check_adapter
from expunge.models.classifier import Classifier
from expunge.models.ensemble import members_of, open_ensemble, state_of
from expunge.models.guarded import guard
from expunge.models.manifest import manifest_of
from expunge.models.soft_prompts import open_prompted
from expunge.models.weights import load_weights

OURS = "expunge.models.networks"


FORMER = {"expunge.subjects.networks": OURS}
"""Names that models saved by earlier versions have for our modules."""


HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
"""owner/name, as the hub has them."""


def kind_of(source: str | Mapping[str, Any], field: str = "model") -> str:
    """ "factory", "ensemble", "classifier" (our own folder), "adapter", "folder" or "hub". Raises BadInput.

    field: the request's field that names the model, for errors.
    """
    if isinstance(source, Mapping):
        return "factory"
    folder = Path(source)
    try:
        exists = folder.exists()
    except OSError as error:
        raise BadInput.of(field, source, f"can be no path ({error.strerror})", "give a folder or a hub name") from None
    if not exists:
        if HUB.fullmatch(source):
            return "hub"
        raise BadInput.of(field, source, "does not exist", "give a folder, a hub name or builtin:authors")
    if not folder.is_dir():
        raise BadInput.of(field, source, "is a file", "give the folder that holds the model")
    if (folder / "ensemble.json").is_file():
        return "ensemble"
    if (folder / "classifier.json").is_file():
        return "classifier"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if not (folder / "config.json").is_file():
        raise BadInput.of(field, source, "holds no config.json", "give a folder written by save_pretrained")
    return "folder"


def check(source: str | Mapping[str, Any], trust_code: bool, weights: bool = True, field: str = "model") -> None:
    """Everything that can be known of a model without loading it. Raises BadInput.

    weights: whether the weights must be there (a dry plan needs none). field: as in kind_of.
    """
    kind = kind_of(source, field)
    if isinstance(source, Mapping):
        _check_factory(source, trust_code, weights, field)
        return
    if kind == "hub":
        return
    folder = Path(source)
    check_folder(folder, field)
    manifest_of(folder, field)
    if kind == "ensemble":
        check_whole(folder, field)
        state = state_of(folder, field)
        if state["scheme"] == "pre_forgettable":
            _check_base(str(state["base"]), trust_code, weights, f"{field} (the base of its soft prompts)")
        for member in members_of(folder, field):
            check(member, trust_code, weights, field)
        return
    _check_weights(folder, "adapter_model.safetensors" if kind == "adapter" else "*.safetensors", weights, field)
    if kind == "folder":
        config_of(source, trust_code, field)
    elif kind == "classifier":
        class_of(_build(folder, field)["factory"], trust_code, field, "code that came with the model")
    else:
        _check_base(check_adapter(folder, field), trust_code, weights, f"{field} (the adapter's base)")


def _check_factory(source: Mapping[str, Any], trust_code: bool, weights: bool, field: str) -> None:
    if not isinstance(source.get("arguments") or {}, Mapping):
        raise BadInput.of(f"{field}.arguments", source["arguments"], "are no `name: value` lines", "write them so")
    class_of(source.get("factory", ""), trust_code, f"{field}.factory")
    path = Path(str(source.get("weights") or ""))
    if source.get("weights") and path.suffix != ".safetensors":
        raise BadInput.of(
            f"{field}.weights",
            str(path),
            "is no safetensors file, and we load no pickle",
            "save the state dict with safetensors.torch.save_file",
        )
    if weights and not path.is_file():
        raise BadInput.of(f"{field}.weights", str(path), "does not exist", "give a .safetensors file")


def _check_weights(folder: Path, pattern: str, weights: bool, field: str) -> None:
    """No pickle is all that there is. An adapter's weights have one name: PEFT takes the .bin beside it where that is
    missing, whatever else lies there."""
    safe = any(path.is_file() for path in folder.glob(pattern))
    pickled = sorted(p.name for end in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for p in folder.glob(end))
    if not safe and pickled:
        raise BadInput.of(
            field,
            str(folder),
            f"holds only pickle weights ({pickled[0]}), which can run code",
            "save it again with save_pretrained(safe_serialization=True)",
        )
    if weights and not safe:
        raise BadInput.of(field, str(folder), "holds no weights", "add model.safetensors (a plan needs none)")


def _check_base(base: str, trust_code: bool, weights: bool, field: str) -> None:
    """What an adapter or soft prompts stand on: one plain model. Raises BadInput."""
    if (kind := kind_of(base, field)) not in ("folder", "hub"):
        raise BadInput.of(
            field,
            base,
            f"is itself {'an' if kind[0] in 'ae' else 'a'} {kind}",
            "merge it, and give the folder of the merged model",
        )
    check(base, trust_code, weights, field)


def open_on_cpu(
    source: str | Mapping[str, Any],
    *,
    trust_code: bool = False,
    meta: bool = False,
    fresh: bool = False,
    dtype: torch.dtype | None = None,
) -> Model:
    """The model as a model, on the CPU, in eval mode, adapters merged, behind its guards.

    meta: structure only, on the meta device, without reading weights. fresh: a factory's network as
    it is made, without weights. Raises BadInput.
    """
    check(source, trust_code, weights=not (meta or fresh))
    kind = kind_of(source)
    if kind == "ensemble":
        model = _open_several(Path(str(source)), trust_code, meta)
    elif kind in ("factory", "classifier"):
        model = _open_factory(source, trust_code, meta)
    else:
        adapter = Path(str(source)) if kind == "adapter" else None
        base = check_adapter(adapter) if adapter else str(source)
        template = (manifest_of(base) or {}).get("template")
        model = open_pretrained(base, adapter, template, trust_code=trust_code, meta=meta, dtype=dtype)
    model.trusted = trust_code  # type: ignore[attr-defined]  # what is made of it is opened in the same way
    return guard(model, Path(str(source))) if kind in ("folder", "adapter") else model


def trusted(model: Any) -> bool:
    """Was the model opened with leave to run code of its own."""
    return bool(getattr(model, "trusted", False))


def _open_several(folder: Path, trust_code: bool, meta: bool) -> Model:
    """Members that answer together, or one base with a soft prompt a group."""
    state = state_of(folder)
    if state["scheme"] == "pre_forgettable":
        return open_prompted(folder, state, trust_code=trust_code, meta=meta)
    return open_ensemble(folder, trust_code=trust_code, meta=meta)


def _build(folder: Path, field: str = "model") -> dict[str, Any]:
    return schemas.read(folder / "classifier.json", schemas.Factory, field)


def _open_factory(source: Any, trust_code: bool, meta: bool) -> Model:
    if not isinstance(source, Mapping):
        source = {**_build(Path(source)), "weights": str(Path(source) / "model.safetensors")}
    make = class_of(source["factory"], trust_code, "model.factory")
    arguments = dict(source.get("arguments") or {})

    def built(device: str) -> nn.Module:
        with (
            foreign(
                "model.arguments",
                str(arguments),
                f"do not build {source['factory']}",
                "give the factory's own arguments",
            ),
            torch.device(device),
        ):
            return make(**arguments)

    weights = Path(source["weights"]) if source.get("weights") and not meta else None
    if weights is not None and make.__module__ == OURS:  # sizes are compared before memory is taken for them
        load_weights(built("meta"), weights, "model.weights", shapes_alone=True)
    module = built("meta" if meta else "cpu")
    if weights is not None:
        load_weights(module, weights, "model.weights")
    module.eval()
    return Classifier(module, {"factory": source["factory"], "arguments": arguments})


def class_of(name: Any, trust_code: bool, field: str, whose: str = "code of yours") -> type[nn.Module]:
    """The class of nn.Module that "package.module:Name" names; nothing is called, and without leave nothing imported
    but our own networks. Raises BadInput."""
    place, _, attribute = str(name).partition(":")
    place = FORMER.get(place, place)
    if not attribute:
        raise BadInput.of(field, name, "names no class", 'write it as "package.module:Name"')
    if place != OURS and not trust_code:
        raise BadInput.of(field, name, f"is {whose}, which opening the model would run", "add trust_code: true")
    if place != OURS and "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(place), attribute)
    except Exception as error:
        raise BadInput.of(
            field,
            name,
            f"cannot be imported ({type(error).__name__}: {error})",
            "check the path; the working directory is searched too",
        ) from None
    if not isinstance(found, type) or not issubclass(found, nn.Module) or (place == OURS and found.__module__ != OURS):
        raise BadInput.of(
            field,
            name,
            "is no class of torch.nn.Module, and nothing else is called",
            "name the class that builds the network",
        )
    return found


def check_tokenizer(source: str, trust_code: bool) -> None:
    """Is there a tokenizer that can be read. Raises BadInput."""
    kind = kind_of(source)
    if kind == "ensemble":
        state = state_of(Path(source))
        first = str(state["base"]) if state["scheme"] == "pre_forgettable" else members_of(Path(source))[0]
        return check_tokenizer(first, trust_code)
    if kind == "adapter":
        source = check_adapter(Path(source))
    tokenizer_of(source, trust_code)


def open_model(source: Any, trust_code: bool = False) -> Model:
    """A model on the device of this process."""
    model = open_on_cpu(source, trust_code=trust_code)
    model.module.to(processes.device())
    return model
