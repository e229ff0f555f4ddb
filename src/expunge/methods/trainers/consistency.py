"""Improved consistency training: neighbouring levels of the noise come nearer to each other in stages."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.methods._games import steps_of
from expunge.methods.objective import plain_training
from expunge.models.consistency import FINAL
from expunge.models.weights import snapshot
from expunge.training.checkpoint import restore

NAME = "consistency"
Pairs = Annotated[int, Ge(2), Le(10_000)]


def check(model: Model, data: Sequence[Example], *, first: int = 10, last: int = FINAL, **options: object) -> None:
    """Raises BadInput unless the model draws in one step by consistency, and the pairs rise."""
    if NAME not in model.capabilities:
        fix = "write model: {diffusion: consistency, ...}, or leave the trainer out"
        raise BadInput.of("trainer", NAME, "trains a consistency model, and the model is none", fix)
    if first > last:
        raise BadInput.of(f"trainer.{NAME}.first", first, f"is above `last`, {last}", "give fewer pairs to begin with")


def train(fresh: Model, data: Sequence[Example], context: Context, *, first: Pairs = 10, last: Pairs = FINAL) -> Model:
    """Train on all pictures, while the pairs of neighbouring levels double from `first` to `last` (arXiv:2310.14189).

    Each number of pairs has an equal share of the budget's steps; the rate falls in the last stage alone. The target is
    the network's own prediction, without a mean of earlier weights. A training that was killed goes on with the stage
    that it was in.
    """
    check(fresh, data, first=first, last=last)
    bare: Any = fresh
    stages = stages_of(first, last)
    steps = steps_of(context, data)
    for i, pairs in enumerate(stages):
        bare.set_pairs(pairs)
        length = (i + 1) * steps // len(stages) - i * steps // len(stages)
        learn = functools.partial(_learn, fresh, data, context, f"pairs-{pairs}", length, i + 1 == len(stages))
        restore(fresh.module, context.once(f"after-{pairs}", learn), "")
    parts = [context.notes[f"pairs-{pairs}"]["outcome"] for pairs in stages]
    sums = {key: sum(part[key] for part in parts) for key in ("steps", "tokens", "seconds")}
    context.notes["outcome"] = {**parts[-1], **sums}
    return fresh


def stages_of(first: int, last: int) -> list[int]:
    """The numbers of pairs, each twice the one before, the last cut to `last`."""
    found = [first]
    while found[-1] < last:
        found.append(min(2 * found[-1], last))
    return found


def _learn(
    model: Model, data: Sequence[Example], context: Context, name: str, steps: int, final: bool
) -> dict[str, Tensor]:
    """The weights after one stage more."""
    own = {"epochs": None, "steps": steps} | ({} if final else {"schedule": "constant"})
    part = context.child(name, budget=context.budget.model_copy(update=own))
    plain_training()(model, {"retain": list(data)}, part)
    return {key: value.cpu().clone() for key, value in snapshot(model.module).items()}
