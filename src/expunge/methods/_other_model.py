"""The weights of another model of the same shape: one that somebody changed, or that the base was trained from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.variables import expand
from expunge.models.build import again, check_again
from expunge.models.guarded import guards_of
from expunge.models.open import check, open_on_cpu
from expunge.models.weights import snapshot

FIX = "give a model of the same architecture and vocabulary"


def check_other(source: str, model: Model, field: str) -> None:
    """Check that this is a single model with the weights' names and shapes. Raises BadInput."""
    place = expand(source, field)
    check(place, model.trusted, field=field)
    other = open_on_cpu(place, trust_code=model.trusted, meta=True)
    if "shards" in other.capabilities or guards_of(other):
        raise BadInput.of(field, source, "is an ensemble, or stands behind guards", "give the bare model")
    ours, theirs = (
        {name: tuple(value.shape) for name, value in one.module.state_dict().items()} for one in (model, other)
    )
    odd = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if odd or other.family != model.family:
        what = f"{odd[0]} is {_size(theirs.get(odd[0]))} in it, and {_size(ours.get(odd[0]))}" if odd else other.family
        raise BadInput.of(field, source, f"has other weights than the model ({what} in the model)", FIX)


def _size(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def weights_of(source: str, model: Model, field: str) -> dict[str, Tensor]:
    """Name -> weight or buffer of the other model, on the CPU, adapters folded in."""
    return dict(snapshot(open_on_cpu(expand(source, field), trust_code=model.trusted).module))


def check_start(source: str | None, model: Model, manifest: Mapping[str, Any] | None, field: str) -> None:
    """Check that the weights which the base's training began with can be had. Raises BadInput."""
    if source is not None:
        check_other(source, model, field)
    elif not manifest or "model" not in manifest:
        why = "is missing, and no manifest says what the model was trained from"
        raise BadInput.of(field, "", why, "give the model that it was trained from")
    elif "budget" in manifest:  # an embedded world's has none before it is built
        check_again(manifest, model)


def start_weights(
    source: str | None, model: Model, manifest: Mapping[str, Any] | None, field: str
) -> dict[str, Tensor]:
    """Name -> weight that the base's training began with: of the model given, or by the manifest."""
    if source is not None:
        return weights_of(source, model, field)
    assert manifest is not None, "check_start refuses a model without one"
    return {name: value.detach().cpu() for name, value in again(manifest, model).module.named_parameters()}
