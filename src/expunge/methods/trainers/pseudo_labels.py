"""Semi-supervised training: a classifier labels rows that have no label of their own, and learns from them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.methods._confident import confident
from expunge.methods.objective import Objective, plain_training
from expunge.models.family import family
from expunge.models.weights import snapshot
from expunge.training.checkpoint import restore

NAME = "pseudo_labels"


def check(model: Model, data: Sequence[Example], *, by: str = "labelled", **options: object) -> None:
    """Raises BadInput unless the model is a classifier, every row says whether its label counts, and one does."""
    if not family(model.family).labelled:
        raise BadInput.of("trainer", NAME, "labels rows, and the model has no classes", "leave the trainer out")
    if lost := next((i + 1 for i, row in enumerate(data) if not isinstance(row.get(by), bool | np.bool_)), 0):
        fix = "name a field that is true or false on each row"
        raise BadInput.of(f"trainer.{NAME}.by", by, f"does not say in row {lost} whether its label counts", fix)
    if data and not any(row[by] for row in data):
        raise BadInput.of(f"trainer.{NAME}.by", by, "is false on all rows", "give some rows with labels")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    by: str = "labelled",
    rounds: Annotated[int, Ge(1)] = 3,
    sure: Annotated[float, Gt(0), Le(1)] = 0.9,
) -> Model:
    """Train on the labelled rows, then in rounds on these and on the rows that the model is sure of.

    Pseudo-labels (Lee 2013, the method of doi:10.48550/arXiv.1908.02983 without mixtures). by: a field that is true
    where the row's own label counts; of the others it is never read. The budget's epochs are divided into `rounds` + 1
    parts; before each but the first, rows get the model's likeliest class where its probability is at least `sure`, and
    the others are left out. A part takes as many steps as it would over all rows, so that few labels are learned as
    well. Raises BadInput.
    """
    check(fresh, data, by=by)
    known, open_rows = ([row for row in data if bool(row[by]) == has] for has in (True, False))
    passes_over_all = (context.budget.epochs or 1) / (rounds + 1)
    for number in range(rounds + 1):
        part = context.child(f"round-{number}")
        some = open_rows if number else []
        learn = functools.partial(_learn, fresh, known, some, part, sure, passes_over_all * len(data))
        restore(fresh.module, context.once(f"after-{number}", learn), "")
    parts = [context.notes[f"round-{number}"]["outcome"] for number in range(rounds + 1)]
    sums = {key: sum(part[key] for part in parts) for key in ("steps", "tokens", "seconds")}
    context.notes["outcome"] = {**parts[-1], **sums}
    return fresh


def _learn(
    model: Model, known: list[Example], open_rows: list[Example], context: Context, sure: float, seen: float
) -> dict[str, Tensor]:
    """The weights after one round more. seen: examples that it trains on, each time counted."""
    rows = [*known, *confident(model, open_rows, sure)]
    context.budget = context.budget.model_copy(update={"epochs": math.ceil(seen / len(rows))})
    plain = plain_training()
    Objective(plain.terms, plain.weights, plain.update, plain.budget, anchor="retain")(model, {"retain": rows}, context)
    return {name: value.cpu().clone() for name, value in snapshot(model.module).items()}
