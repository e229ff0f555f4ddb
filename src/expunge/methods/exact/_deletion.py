"""What all exact deletions share: whose data they delete, what they check, what they say afterwards."""

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


def left_and_gone(
    manifest: Mapping[str, Any] | None, forget: Sequence[Example], name: str, leave: bool
) -> tuple[list[Example], list[Example]]:
    """(what stays of the training data, what goes). Raises BadInput where that cannot be told.

    name: the scheme, for errors. leave: the request's to ask the hub for what the manifest names.
    """
    if not manifest:
        raise BadInput.of(
            "method", name, "needs to know how the model was trained", "give a model made by `expunge train`"
        )
    before = training_data(manifest, [], leave)
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
            "holds all that the model was trained on, which leaves nothing to serve",
            "delete the model instead",
        )
    return [row for row in before if identity(row) not in keys], gone


def history(
    manifest: Mapping[str, Any] | None, splits: Mapping[str, Sequence[Example]], model: Any
) -> tuple[list[Example], list[Example], list[str]]:
    """(what stays of the training data, what goes, what plan and report should say). Raises BadInput.

    Parts are trained again from the same start, so that it must be had, and with the request's leave alone.
    """
    one_process("method")
    state, notes = model.state, []
    left, gone = left_and_gone(manifest, splits["forget"], str(state["scheme"]), model.trusted)
    assert manifest is not None
    check_again(manifest, model)
    strangers = len(splits["forget"]) - len({identity(row) for row in gone})
    if strangers:
        notes.append(f"{strangers} of {len(splits['forget'])} forget examples were not among the training data.")
    there, here = state.get("environment") or {}, environment()
    if changed := [key for key in here if there.get(key) != here[key]]:
        notes.append(
            f"Trained with another {' and '.join(changed)} than now: retrained shards may differ in their last "
            "bits from a training without the forget set."
        )
    spec = manifest.get("model")
    if isinstance(spec, Mapping) and "architecture" in spec:
        notes.append("The tokenizer was learned from the training texts, the deleted ones included, and is kept.")
    return left, gone, notes


def must_stand(part: Path) -> None:
    """Raises BadInput where a part of the ensemble's folder that a deletion keeps is missing."""
    if not part.is_dir():
        raise BadInput.of(
            "model", str(part), "is missing, and the ensemble is not whole without it", "train the model again"
        )


def environment() -> dict[str, Any]:
    """What bit-for-bit equality hangs on."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def new_state(scheme: str, options: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """The head of ensemble.json."""
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
    """The budget of the training."""
    return Budget(**state["budget"])


def tell(
    context: Context,
    state: dict[str, Any],
    gone: int,
    steps: int,
    total: int,
    said: str,
    more: Mapping[str, float] | None = None,
) -> None:
    """Notes the deletion for evidence and report, and counts it in the state (without naming what went).

    steps: retrained for it. total: steps of a training of everything without it. more: further figures.
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
            f"Exact deletion of {gone} training example{'s' if gone != 1 else ''} by {state['scheme']}: {steps:,} of the "
            f"{total:,} steps of a training without {them} were run; request {served} that this model serves.",
            said,
        ],
    }
