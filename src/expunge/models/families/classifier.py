"""Classifiers of images, tables and texts: a PyTorch module of anyone's, or transformers' own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.random import seed_libraries
from expunge.models import schemas
from expunge.models._folder import foreign
from expunge.models.classifier import Classifier
from expunge.models.family import Family, Source
from expunge.models.sources import OURS, check_weights, class_of, known_kind
from expunge.models.weights import load_weights

SMALLEST = 96
"""Pixels of the side to which small pictures are enlarged."""


def claims(source: Source) -> bool:
    """Whether it names a class that builds the network, or is the folder of such a one."""
    if isinstance(source, Mapping):
        return "factory" in source
    return known_kind(source) == "classifier"


def check(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of it without building it. Raises BadInput."""
    if not isinstance(source, Mapping):
        check_weights(Path(source), "*.safetensors", weights, field)
        named = schemas.read(Path(source) / "classifier.json", schemas.Factory, field)["factory"]
        class_of(named, trust_code, field, "code that came with the model")
        return
    if not isinstance(source.get("arguments") or {}, Mapping):
        raise BadInput.of(f"{field}.arguments", source["arguments"], "are no `name: value` lines", "write them so")
    class_of(source.get("factory", ""), trust_code, f"{field}.factory")
    path = Path(str(source.get("weights") or ""))
    if source.get("weights") and path.suffix != ".safetensors":
        raise BadInput.of(
            f"{field}.weights",
            str(path),
            "is not a safetensors file, and we load no pickle",
            "save the state dict with safetensors.torch.save_file",
        )
    if weights and not path.is_file():
        raise BadInput.of(f"{field}.weights", str(path), "does not exist", "give a .safetensors file")


def open_classifier(source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None = None) -> Model:
    """The network with its weights; without, where the source names none, or on the meta device."""
    if not isinstance(source, Mapping):
        named = schemas.read(Path(source) / "classifier.json", schemas.Factory, "model")
        source = {**named, "weights": str(Path(source) / "model.safetensors")}
    make = class_of(source["factory"], trust_code, "model.factory")
    arguments = dict(source.get("arguments") or {})

    def build(device: str) -> nn.Module:
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
        load_weights(build("meta"), weights, "model.weights", shapes_alone=True)
    module = build("meta" if meta else "cpu")
    if weights is not None:
        load_weights(module, weights, "model.weights")
    module.eval()
    return Classifier(module, {"factory": source["factory"], "arguments": arguments})


def fresh(
    spec: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    seed: int,
    trust_code: bool,
    like: Model | None,
    meta: bool,
) -> Model:
    """The network as its class makes it, or with the weights that the specification names."""
    seed_libraries(seed, "weights")
    return open_classifier(spec, trust_code=trust_code, meta=meta)


def show(example: Example) -> bytes | str:
    """The picture as PNG, small ones enlarged; nothing of a table's row or a text."""
    if "image" not in example:
        return ""
    array = np.asarray(example["image"])
    if array.dtype != np.uint8:
        array = (np.clip(array.astype(np.float64) / max(1.0, float(np.max(array))), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(array)
    times = max(1, SMALLEST // max(1, min(picture.size)))
    file = io.BytesIO()
    picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


FAMILY = Family(
    name="classifier",
    title="classifier",
    claims=claims,
    check=check,
    open=open_classifier,
    fresh=fresh,
    example_forms=(("image", "label"), ("features", "label"), ("text", "label")),
    channels=("nll", "logp", "logits", "topk", "argmax", "moments"),
    capabilities=frozenset({"labels", "nll"}),
    headline={
        "forgetting": ("forget_accuracy", "forget_nll"),
        "utility": ("retain_accuracy", "test_accuracy"),
    },
    kept="accuracy",
    show=show,
)
