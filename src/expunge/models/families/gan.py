"""Generative adversarial networks of small pictures, trained here: they draw, and cannot be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.random import seed_libraries
from expunge.core.request import parse
from expunge.models import schemas
from expunge.models.families.classifier import show
from expunge.models.family import Family, Source
from expunge.models.gan import FILE, WEIGHTS, Gan
from expunge.models.judges import CONCEPT, DRAWN, teach_judges
from expunge.models.sources import check_weights
from expunge.models.weights import check_finite, load_weights

Size = Annotated[int, Field(gt=0, le=4096)]


class Sizes(schemas._File):
    """gan.json. side: pixels; latent: values of noise that a picture is drawn from; widths: of the generator's hidden
    layers, which the discriminator has in reverse."""

    model_config = ConfigDict(extra="forbid")

    side: Annotated[int, Field(gt=0, le=256)] = 8
    channels: Annotated[int, Field(ge=1, le=4)] = 1
    latent: Size = 32
    widths: Annotated[list[Size], Field(min_length=1, max_length=8)] = [128, 256]


class Spec(Sizes):
    """`model` of a train.yaml."""

    gan: Literal["perceptrons"]


def claims(source: Source) -> bool:
    """Whether it gives the sizes of new players, or is the folder of such."""
    if isinstance(source, Mapping):
        return "gan" in source
    try:
        return (Path(source) / FILE).is_file()
    except (OSError, ValueError):
        return False


def check(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of it without loading it. Raises BadInput."""
    if isinstance(source, Mapping):
        parse(Spec, source, field, field)
        return
    schemas.read(Path(source) / FILE, Sizes, field)
    check_weights(Path(source), WEIGHTS, weights, field)


def open_gan(source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None = None) -> Model:
    """The players of a folder, in float32; their structure alone where `meta`. Never unpickles. Raises BadInput."""
    if isinstance(source, Mapping):
        raise BadInput.of("model", str(dict(source)), "is not trained yet", "train it with `expunge train`")
    sizes = schemas.read(Path(source) / FILE, Sizes, "model")
    with torch.device("meta" if meta else "cpu"):
        model = Gan(Sizes.model_validate(sizes).model_dump())
    if not meta:
        load_weights(model.module, Path(source) / WEIGHTS, "model")
        check_finite(model.module, str(source))
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
    """New players, untrained."""
    sizes = parse(Spec, spec, "model", "model").model_dump(exclude={"gan"})
    seed_libraries(seed, "weights")
    with torch.device("meta" if meta else "cpu"):
        return Gan(sizes)


def no_loss(nats: Any) -> Any:
    """The knowledge of a loss: never called, since there is none."""
    raise AssertionError("a GAN has no loss of an example")


FAMILY = Family(
    name="gan",
    title="GAN",
    claims=claims,
    check=check,
    open=open_gan,
    fresh=fresh,
    example_forms=(("image", "label"), ("image",)),
    channels=DRAWN,
    capabilities=Gan.capabilities,
    headline={"forgetting": ("forget_feature_rate",), "utility": ("retain_picture_distance", "test_picture_distance")},
    kept="knowledge",
    knowledge=no_loss,
    known=CONCEPT,
    study=teach_judges,
    show=show,
    trainer="gan",
)
