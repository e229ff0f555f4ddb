"""Encoders of pictures, trained without labels by a pretext task, and transformers' encoders of texts and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from torch import nn

from expunge.core.card import Example
from expunge.core.channels import Channel
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.random import seed_libraries
from expunge.core.request import parse
from expunge.models import schemas
from expunge.models._encoder_folder import check_encoder_folder, open_encoder_folder
from expunge.models._folder import foreign
from expunge.models.encoder import EMBEDDING, FILE, VIEWS, Encoder, Network
from expunge.models.families.classifier import show
from expunge.models.family import Family, Source
from expunge.models.pretext import DEFAULT, make_pretext, pretext_of
from expunge.models.sources import OURS, check_weights, class_of, known_kind
from expunge.models.views import Views
from expunge.models.weights import load_weights


class Spec(schemas._File):
    """`model` of a train.yaml, and encoder.json.

    encoder: the class of the network, one of ours by its name alone. width: of its embeddings, where the network does
    not have an attribute of that name.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    encoder: str = Field(min_length=1, max_length=1000)
    arguments: dict[str, Any] = {}
    width: int | None = Field(default=None, gt=0, le=2**20)
    pretext: str | dict[str, Any] = DEFAULT
    views: Views = Views()


def claims(source: Source) -> bool:
    """Whether it names an encoder's network, or is the folder of an encoder, ours or transformers'."""
    if isinstance(source, Mapping):
        return "encoder" in source
    if known_kind(source) == "encoder":
        return True
    try:
        return (Path(source) / FILE).is_file()
    except (OSError, ValueError):
        return False


def check(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of it without building it. Raises BadInput."""
    if isinstance(source, Mapping):
        build_of(source, trust_code, field)
        return
    if known_kind(source) == "encoder":
        check_encoder_folder(source, trust_code, weights, field)
        return
    check_weights(Path(source), "*.safetensors", weights, field)
    build_of(schemas.read(Path(source) / FILE, Spec, field), trust_code, field, "code that came with the model")


def build_of(
    values: Mapping[str, Any], trust_code: bool, field: str, whose: str = "code of yours"
) -> tuple[type[nn.Module], dict[str, Any]]:
    """(the network's class, the whole recipe with its defaults filled in). Raises BadInput."""
    spec = parse(Spec, values, field, field)
    named = spec.encoder if ":" in spec.encoder else f"{OURS}:{spec.encoder}"
    found = class_of(named, trust_code, f"{field}.encoder", whose)
    name, options = pretext_of(spec.pretext, f"{field}.pretext")
    build = {"encoder": named, "arguments": spec.arguments, "width": spec.width, "pretext": {name: options}}
    return found, {**build, "views": spec.views.model_dump()}


def build(values: Mapping[str, Any], trust_code: bool, device: str) -> Encoder:
    """The encoder with new weights, on the device. Raises BadInput."""
    make, recipe = build_of(values, trust_code, "model")
    ((name, options),) = recipe["pretext"].items()
    arguments = str(recipe["arguments"])
    with (
        foreign("model.arguments", arguments, f"do not build {recipe['encoder']}", "give the class's own arguments"),
        torch.device(device),
    ):
        network = make(**recipe["arguments"])
    width = recipe["width"] or getattr(network, "width", None)
    if not isinstance(width, int):
        raise BadInput.of("model.width", "", "is missing, and the network does not tell it", "give the embeddings'")
    with torch.device(device):
        head = make_pretext(name, options).head(width)
    return Encoder(Network(network, head).eval(), recipe)


def open_encoder(source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None = None) -> Model:
    """The encoder of a folder with its weights; of a mapping, or on the meta device, without."""
    if isinstance(source, Mapping):
        return build(source, trust_code, "meta" if meta else "cpu")
    if known_kind(source) == "encoder":
        return open_encoder_folder(source, trust_code, meta)
    found = schemas.read(Path(source) / FILE, Spec, "model")
    weights = Path(source) / "model.safetensors"
    if not meta:  # sizes are compared before memory is taken for them
        load_weights(build(found, trust_code, "meta").module, weights, "model", shapes_alone=True)
    model = build(found, trust_code, "meta" if meta else "cpu")
    if not meta:
        load_weights(model.module, weights, "model")
    return model


def fresh(
    spec: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    seed: int,
    trust_code: bool,
    like: Model | None,
    meta: bool,
) -> Model:
    """The network and its head as their classes make them."""
    seed_libraries(seed, "weights")
    return build(spec, trust_code, "meta" if meta else "cpu")


FAMILY = Family(
    name="encoder",
    title="encoder",
    claims=claims,
    check=check,
    open=open_encoder,
    fresh=fresh,
    example_forms=(("image",), ("image", "label"), ("text",), ("text", "label")),
    channels=(
        "nll",
        Channel(name=EMBEDDING, words="embeddings", unit="none"),
        Channel(name=VIEWS, words="embeddings of views", unit="none"),
    ),
    capabilities=frozenset({"nll", EMBEDDING}),
    headline={
        "forgetting": ("privacy_loss_auc", "forget_nll"),
        "utility": ("test_linear_probe", "retain_linear_probe", "retain_nll"),
    },
    show=show,
)
