"""Shared parts of exact deletions: the training data, the checks, the notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Example
from expunge.core.errors import BadInput
from expunge.data.examples import identity
from expunge.methods.exact._sliced import one_process
from expunge.models.build import check_again, training_data
from expunge.models.open import trusted


def split_training_data(
    manifest: Mapping[str, Any] | None, forget: Sequence[Example], name: str, hub: bool
) -> tuple[list[Example], list[Example]]:
    """Split the training data into (rows that stay, rows to delete). Raises BadInput where they are unknown.

    name: the scheme, for errors. hub: whether the hub may be asked for what the manifest names.
    """
    if not manifest:
        raise BadInput.of(
            "method", name, "needs the record of how the model was trained", "give a model made by `expunge train`"
        )
    before = training_data(manifest, [], hub)
    keys = {identity(row) for row in forget}
    gone = [row for row in before if identity(row) in keys]
    if not gone:
        raise BadInput.of(
            "forget", "", "holds none of the examples that the model was trained on", "give rows of its training data"
        )
    if len(gone) == len(before):
        raise BadInput.of(
            "forget",
            "",
            "holds all the training data, which leaves nothing to serve",
            "delete the model instead",
        )
    return [row for row in before if identity(row) not in keys], gone


def history(
    manifest: Mapping[str, Any] | None, splits: Mapping[str, Sequence[Example]], model: Any
) -> tuple[list[Example], list[Example], list[str]]:
    """Return (rows that stay, rows to delete, notes for plan and report). Raises BadInput.

    Parts are retrained from the same start, which must be available with the permissions of this request.
    """
    one_process("method")
    state, notes = model.state, []
    left, gone = split_training_data(manifest, splits["forget"], str(state["scheme"]), trusted(model))
    assert manifest is not None
    check_again(manifest, model)
    unknown = len(splits["forget"]) - len({identity(row) for row in gone})
    if unknown:
        notes.append(f"{unknown} of {len(splits['forget'])} forget examples were not among the training data.")
    then, now = state.get("environment") or {}, environment()
    if changed := [key for key in now if then.get(key) != now[key]]:
        notes.append(
            f"Trained with another {' and '.join(changed)}: retrained shards may differ in their last bits from a "
            "training without the forget set."
        )
    spec = manifest.get("model")
    if isinstance(spec, Mapping) and "architecture" in spec:
        notes.append("The tokenizer was learned from the training texts, including the deleted ones, and is kept.")
    return left, gone, notes


def require_part(part: Path) -> None:
    """Raise BadInput where a part of the ensemble's folder that a deletion keeps is missing."""
    if not part.is_dir():
        raise BadInput.of(
            "model", str(part), "is missing, and the ensemble is incomplete without it", "train the model again"
        )


def environment() -> dict[str, Any]:
    """Return the settings that bit-for-bit equality depends on."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def new_state(scheme: str, options: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Start the content of ensemble.json."""
    return {
        "schema": 1,
        "scheme": scheme,
        "options": dict(options),
        "seed": context.seed,
        "stage": context.stage,
        "budget": context.budget.model_dump(exclude_unset=True),
        "environment": environment(),
        "requests": [],
    }


def budget_in(state: Mapping[str, Any]) -> Budget:
    """Read the training's budget from the state."""
    return Budget(**state["budget"])


def record_deletion(
    context: Context,
    state: dict[str, Any],
    gone: int,
    steps: int,
    total: int,
    sentence: str,
    more: Mapping[str, float] | None = None,
) -> None:
    """Note the deletion for evidence and report, and count it in the state without naming the examples.

    steps: retrained for it. total: of a whole training without the examples. more: further figures.
    """
    state["requests"] = [*state["requests"], {"examples": gone, "steps": steps, "of": total}]
    served = len(state["requests"])
    them = "them" if gone != 1 else "it"
    context.notes["exact"] = {
        "scheme": state["scheme"],
        "deleted": gone,
        "steps_retrained": steps,
        "steps_total": total,
        "requests_served": served,
        **(more or {}),
        "said": [
            f"Exact deletion of {gone} training example{'s' if gone != 1 else ''} by {state['scheme']}: {steps:,} of "
            f"the {total:,} steps of a training without {them} were run; request {served} that this model serves.",
            sentence,
        ],
    }
