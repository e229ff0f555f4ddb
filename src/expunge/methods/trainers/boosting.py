"""Gradient boosting of trees with XGBoost: an epoch of the budget is a round, which sees all rows once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.models.classifier import floats
from expunge.models.trees import Boosted, Trees, grow

STAGE = "boosting"


def check(fresh: Model, data: Sequence[Example], **options: object) -> None:
    """Raises BadInput unless the model is one of trees."""
    require_trees(fresh, STAGE)


def require_trees(fresh: Model, trainer: str) -> None:
    """Raise BadInput unless the model is one of trees."""
    if "trees" not in fresh.capabilities:
        why = "grows trees, and this model has weights"
        raise BadInput.of("trainer", trainer, why, "write model: {trees: xgboost}, or leave the trainer out")


def objective(classes: int) -> dict[str, object]:
    """XGBoost's objective for so many classes."""
    return {"objective": "multi:softprob", "num_class": classes} if classes > 2 else {"objective": "binary:logistic"}


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    depth: Annotated[int, Ge(1), Le(30)] = 6,
    rate: Annotated[float, Gt(0), Le(1)] = 0.3,
    subsample: Annotated[float, Gt(0), Le(1)] = 1.0,
    least_weight: Annotated[float, Ge(0)] = 1.0,
    shrinkage: Annotated[float, Ge(0)] = 1.0,
) -> Model:
    """Grow as many rounds of trees as the budget has epochs (XGBoost, arXiv:1603.02754; XGBoost's own defaults).

    depth: of a tree. rate: of each round. subsample: share of the rows that a round sees. least_weight: Hessian that a
    leaf must hold (`min_child_weight`). shrinkage: L2 penalty of a leaf. Learning rate and batch size of the budget say
    nothing to trees.
    """
    check(fresh, data)
    assert isinstance(fresh, Trees)
    classes, started = fresh.boosted.classes, time.perf_counter()
    parameters = {
        **objective(classes),
        "max_depth": depth,
        "eta": rate,
        "subsample": subsample,
        "min_child_weight": least_weight,
        "lambda": shrinkage,
        "seed": context.derive(STAGE) % 2**31,
    }
    rounds = int(context.budget.epochs or 1)
    context.reporter.start(STAGE, rounds)
    raw = grow(b"", data, parameters, rounds, lambda i: context.reporter.advance(STAGE, i, f"round {i}"))
    context.reporter.finish(STAGE)
    seconds = time.perf_counter() - started
    context.notes["outcome"] = {"steps": rounds, "tokens": rounds * len(data), "seconds": seconds}
    columns = len(floats(data[0]["features"]))
    return Trees(Boosted(classes, columns, raw).eval())
