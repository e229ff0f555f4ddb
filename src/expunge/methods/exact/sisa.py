"""Sharded, isolated, sliced, aggregated training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods.exact._shards import ShardDeletion, Sharding, train_shards
from expunge.methods.exact._sliced import check_shape

CARD = MethodCard(
    "Sharded, isolated, sliced and aggregated training",
    paper="arXiv:1912.03817",
    equation="sections IV to VI",
    needs={"forget": ()},
    capabilities={"shards", "exact:sisa"},
    yields="ensemble",
    means="Exact: each shard's weights are those of a training without the forget set, bit for bit. Requires "
    "`exact: {sisa: ...}` in train.yaml, stores one checkpoint per slice, and answers with all shards at once.",
    deterministic=True,
    fidelity="faithful",
    shown="After a deletion every tensor of every shard is that of a training without the examples.",
)


def check(fresh: Model, data: Sequence[Example], *, shards: int, slices: int) -> None:
    """Require an example for every slice. Raises BadInput."""
    check_shape(data, slices, shards * slices, "sisa")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    shards: Annotated[int, Ge(1), Le(1000)] = 4,
    slices: Annotated[int, Ge(1), Le(1000)] = 4,
) -> Model:
    """Train an ensemble of `shards` models, each on its own share of the data in `slices` growing steps.

    Stage i of a shard trains on its slices 1..i for 2/(slices + 1) of the epochs and is stored as a checkpoint. The
    ensemble is written to the context's folder. Raises BadInput.
    """
    check(fresh, data, shards=shards, slices=slices)
    return train_shards(fresh, data, context, "sisa", {"shards": shards, "slices": slices}, Sharding())


def sisa() -> Method:
    """Retrain only the shards that held forget examples, each from the checkpoint before their first slice.

    The model must come from `exact: {sisa: {shards: 4, slices: 4}}` in train.yaml; seed, stage and
    budget are those of its training.
    """
    return ShardDeletion()
