"""A model's source, and what of it may be opened: folders, hub names, and classes that build networks."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from expunge.core.errors import BadInput
from expunge.core.files import read_json

OURS = "expunge.models.networks"

FORMER = {"expunge.subjects.networks": OURS}
"""Names that models saved by earlier versions have for our modules."""

HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
"""owner/name, as the hub has them."""


def kind_of(source: str | Mapping[str, Any], field: str = "model") -> str:
    """ "factory", "ensemble", "classifier" (our own folder), "adapter", "hub", or a folder of transformers: "encoder",
    "pair", or "folder" for all others; "diffusion" of diffusers, "gan" of ours. Raises BadInput.

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
    if (folder / "model_index.json").is_file():
        return "diffusion"
    if (folder / "gan.json").is_file():
        return "gan"
    if not (folder / "config.json").is_file():
        raise BadInput.of(field, source, "holds no config.json", "give a folder written by save_pretrained")
    return _task(folder)


def _task(folder: Path) -> str:
    """ "encoder" where transformers wrote a bare encoder of texts or pictures, or sentence-transformers one; "pair" for
    CLIP; else "folder"."""
    if (folder / "modules.json").is_file():
        return "encoder"
    try:
        config = read_json(folder / "config.json")
        (name,), kind = config["architectures"], config["model_type"]
        if not name.endswith("Model") or config.get("is_decoder"):
            return "folder"
    except Exception:  # a file of anyone's: whoever opens it says what is wrong with it
        return "folder"
    if name == "CLIPModel":
        return "pair"
    from transformers.models.auto import modeling_auto as auto  # it takes a second, and few sources come here

    masked, seeing = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    bare = auto.MODEL_MAPPING_NAMES.get(kind) == name and (kind in masked or kind in seeing)
    return "encoder" if bare else "folder"


def known_kind(source: str | Mapping[str, Any]) -> str:
    """`kind_of`, and "" for what is not a source of ours."""
    try:
        return kind_of(source)
    except (BadInput, ValueError):
        return ""


def check_weights(folder: Path, pattern: str, weights: bool, field: str) -> None:
    """Raises BadInput where pickle is all that there is. An adapter's weights have one name: PEFT takes the .bin beside
    it where that is missing, whatever else lies there."""
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
            "is not a class of torch.nn.Module, and nothing else is called",
            "name the class that builds the network",
        )
    return found
