"""Sequence-aware sharded sliced training: a deletion switches adapters off, and nothing is retrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods.exact._layers import LayerDeletion, train_layers
from expunge.methods.exact._sliced import check_base, check_shape

CARD = MethodCard(
    "Sequence-aware sharded sliced training",
    paper="arXiv:2406.16257",
    equation="section 3",
    needs={"forget": ()},
    capabilities={"shards", "exact:s3t", "tokens"},
    yields="ensemble",
    means="Exact: no adapter that serves was trained on a deleted example. Each deletion costs layers, not steps, and "
    "thus quality; when no layer is left, all is retrained. Requires `exact: {s3t: ...}` in train.yaml.",
    deterministic=True,
    fidelity="faithful",
    shown="It serves 1.4 to 3 times as many deletions as SISA at equal storage, and its adapters are, bit for bit, "
    "those of a training without the example.",
)


def check(
    fresh: Model, data: Sequence[Example], *, shards: int, slices: int, orderings: int, rank: int, lora_alpha: int
) -> None:
    """Require a trained base with enough layers, and data for every slice. Raises BadInput."""
    check_base(fresh, "s3t", "adapters")
    if slices > len(fresh.blocks):
        raise BadInput.of(
            "exact.s3t.slices",
            slices,
            f"is more than the model's {len(fresh.blocks)} layers, and each slice takes at least one",
            "take fewer slices",
        )
    if orderings > slices:
        raise BadInput.of(
            "exact.s3t.orderings",
            orderings,
            f"is more than the {slices} slices, each of which comes first once",
            "take fewer orderings, or more slices",
        )
    check_shape(data, slices, shards * slices, "s3t")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    shards: Annotated[int, Ge(1), Le(1000)] = 1,
    slices: Annotated[int, Ge(1), Le(1000)] = 4,
    orderings: Annotated[int, Ge(1), Le(1000)] = 4,
    rank: Annotated[int, Gt(0)] = 16,
    lora_alpha: Annotated[int, Gt(0)] = 32,
) -> Model:
    """Train adapters on a frozen base: stage i trains those of the i-th run of layers from the TOP, on slices 1..i.

    Each shard is trained in `orderings` cyclic orders of its slices; the one with the most layers left serves. Raises
    BadInput.
    """
    check(fresh, data, shards=shards, slices=slices, orderings=orderings, rank=rank, lora_alpha=lora_alpha)
    return train_layers(
        fresh,
        data,
        context,
        {"shards": shards, "slices": slices, "orderings": orderings, "rank": rank, "lora_alpha": lora_alpha},
    )


def s3t() -> Method:
    """Switch off the adapters that saw the forget examples, in each ordering, and serve the best one left.

    An example in slice i costs an ordering the layers of that slice and all BELOW them, which were trained on it too.
    The model must come from `exact: {s3t: ...}` in train.yaml.
    """
    return LayerDeletion()
