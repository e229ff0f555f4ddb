"""Opens a model from anywhere: a hub name, a folder, a PEFT adapter, a network with weights, an ensemble.

Nothing here unpickles: a folder that holds only pickle weights is refused. Code that comes with a model runs with the
request's leave alone (`trust_code`), whatever the folder says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from expunge.core import collection, processes
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.models._folder import check_folder, check_whole
from expunge.models._pretrained import tokenizer_of
from expunge.models.adapters import check_adapter, tokenizer_source
from expunge.models.ensemble import Ensemble, members_of, state_of
from expunge.models.families.causal_lm import check_base
from expunge.models.family import Family, Source, family_of
from expunge.models.guarded import guard
from expunge.models.history import with_history
from expunge.models.manifest import manifest_of
from expunge.models.soft_prompts import Prompted, attach_prompts
from expunge.models.sources import kind_of, known_kind


def check(source: Source, trust_code: bool, weights: bool = True, field: str = "model") -> None:
    """Everything that can be known of a model without loading it. Raises BadInput.

    weights: whether the weights must be there (a dry plan needs none). field: as in kind_of.
    """
    folder = Path(source) if isinstance(source, str) and known_kind(source) != "hub" else None
    several = known_kind(source) == "ensemble"
    found = None if several else _family(source, field)
    if folder is not None:
        check_folder(folder, field)
        manifest_of(folder, field)
    if found is not None:
        found.check(source, trust_code=trust_code, weights=weights, field=field)
    elif folder is not None:
        _check_ensemble(folder, trust_code, weights, field)


def _family(source: Source, field: str) -> Family:
    """The family that opens a source. Raises BadInput that says what is wrong with one that none opens."""
    if (found := family_of(source)) is not None:
        return found
    kind_of(source, field)
    raise BadInput.of(field, str(source), "is a model of no installed family", "see `expunge list models`")


def _check_ensemble(folder: Path, trust_code: bool, weights: bool, field: str) -> None:
    check_whole(folder, field)
    state = state_of(folder, field)
    if state["scheme"] == "pre_forgettable":
        base, of_base = str(state["base"]), f"{field} (the base of its soft prompts)"
        check_base(base, of_base)
        check(base, trust_code, weights, of_base)
    for member in members_of(folder, field):
        check(member, trust_code, weights, field)


def open_on_cpu(
    source: str | Mapping[str, Any],
    *,
    trust_code: bool = False,
    meta: bool = False,
    dtype: torch.dtype | None = None,
) -> Model:
    """The model on the CPU, in eval mode, adapters merged, behind its guards.

    meta: structure only, on the meta device, without reading weights. Raises BadInput.
    """
    check(source, trust_code, weights=not meta)
    if known_kind(source) == "ensemble":
        return _open_several(Path(str(source)), trust_code, meta)
    model = _family(source, "model").open(source, trust_code=trust_code, meta=meta, dtype=dtype)
    model.trusted = trust_code  # what is made of it is opened in the same way
    return guard(with_history(model, Path(source)), Path(source)) if isinstance(source, str) else model


def _open_several(folder: Path, trust_code: bool, meta: bool) -> Model:
    """Members that answer together, or one base with a soft prompt per group."""
    state = state_of(folder)
    if state["scheme"] == "pre_forgettable":
        return open_prompted(folder, state, trust_code=trust_code, meta=meta)
    return open_ensemble(folder, trust_code=trust_code, meta=meta)


def open_ensemble(folder: Path, *, trust_code: bool = False, meta: bool = False) -> Ensemble:
    """The members, opened as models of their own. Raises BadInput."""
    members = [open_on_cpu(name, trust_code=trust_code, meta=meta) for name in members_of(folder)]
    model = Ensemble(Path(folder), state_of(folder), members)
    model.trusted = trust_code
    return model


def open_prompted(folder: Path, state: dict[str, Any], *, trust_code: bool = False, meta: bool = False) -> Prompted:
    """The base, opened from where `state` says it lies, and the prompts of the folder. Raises BadInput."""
    bare = open_on_cpu(str(state["base"]), trust_code=trust_code, meta=meta)
    model = attach_prompts(folder, state, bare)
    model.trusted = trust_code
    return model


def check_tokenizer(source: Any, trust_code: bool, capabilities: frozenset[str]) -> None:
    """Raises BadInput where a model of texts, which has these capabilities, has no tokenizer that can be read."""
    if "tokens" not in capabilities or not isinstance(source, str):
        return
    kind = kind_of(source)
    if kind == "ensemble":
        state = state_of(Path(source))
        first = str(state["base"]) if state["scheme"] == "pre_forgettable" else members_of(Path(source))[0]
        check_tokenizer(first, trust_code, capabilities)
        return
    if kind == "adapter":
        source = tokenizer_source(Path(source), check_adapter(Path(source)))
    tokenizer_of(source, trust_code)


def open_model(source: Any, trust_code: bool = False) -> Model:
    """A model on the device of this process."""
    collection.settle()  # whatever models are made of is imported, and work begins
    model = open_on_cpu(source, trust_code=trust_code)
    model.module.to(processes.device())
    return model
