"""Continual training of a classifier that replays what is typical of each earlier class, and leaves outliers out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.methods._head import head_inputs, linear_head
from expunge.methods.objective import Objective, plain_training
from expunge.models.family import family
from expunge.models.weights import snapshot
from expunge.training.checkpoint import restore

NAME = "open_replay"


def check(model: Model, data: Sequence[Example], *, by: str = "task", **options: object) -> None:
    """Raises BadInput unless the model is a classifier with a linear head and every row says of which task it is."""
    if not family(model.family).labelled:
        fix = "give a classifier, or leave the trainer out"
        raise BadInput.of("trainer", NAME, "replays rows of classes, and the model has none", fix)
    if lost := next((i + 1 for i, row in enumerate(data) if by not in row), 0):
        raise BadInput.of(f"trainer.{NAME}.by", by, f"is missing in row {lost}", "name a field that all rows have")
    if data:
        linear_head(model, list(data[:2]), f"{NAME} measures distances in what it reads")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    by: str = "task",
    memory: Annotated[int, Ge(0)] = 10,
    typical: Annotated[float, Gt(0), Le(1)] = 0.8,
) -> Model:
    """Learn the tasks one after another, with the budget's epochs for each, beside replayed rows of the earlier ones.

    After arXiv:2009.01797: what an open-set recogniser would reject is not replayed. by: the field that names a row's
    task; tasks come in sorted order. memory: rows kept of each class of a task, drawn by seed among the share `typical`
    of its rows that lie nearest to the class's mean in the features when the task was learned (1: among all); 0 keeps
    none. The paper rejects by a Weibull distribution of the distances and replays what a generative model draws; a
    quantile and the rows themselves stand for these. Raises BadInput.
    """
    check(fresh, data, by=by)
    tasks: dict[str, list[Example]] = {}
    for row in sorted(data, key=lambda row: str(row[by])):
        tasks.setdefault(str(row[by]), []).append(row)
    old: list[Example] = []
    for number, rows in enumerate(tasks.values()):
        learn = functools.partial(_learn, fresh, [*rows, *old], context.child(f"task-{number}"))
        restore(fresh.module, context.once(f"after-{number}", learn), "")
        seen = typical_rows(fresh, rows, typical)
        for label in sorted({int(row["label"]) for row in seen}):
            own = [row for row in seen if int(row["label"]) == label]
            order = permutation(len(own), context.seed, context.stage, "memory", number, label)
            old += [own[i] for i in order[:memory]]
    parts = [context.notes[f"task-{number}"]["outcome"] for number in range(len(tasks))]
    sums = {key: sum(part[key] for part in parts) for key in ("steps", "tokens", "seconds")}
    context.notes["outcome"] = {**parts[-1], **sums}
    return fresh


def typical_rows(model: Model, rows: Sequence[Example], share: float) -> list[Example]:
    """The rows of each label that lie nearest to its mean in the head's inputs: this share, at least one."""
    path, _ = linear_head(model, list(rows[:2]), f"{NAME} measures distances in what it reads")
    feature_ND = head_inputs(model, rows, path)
    label_N = np.array([int(row["label"]) for row in rows])
    kept: set[int] = set()
    for label in np.unique(label_N):
        own = np.flatnonzero(label_N == label)
        far = np.linalg.norm(feature_ND[own] - feature_ND[own].mean(0), axis=1)
        kept |= set(own[np.argsort(far, kind="stable")[: max(1, round(share * len(own)))]].tolist())
    return [rows[i] for i in sorted(kept)]


def _learn(model: Model, rows: list[Example], context: Context) -> dict[str, Tensor]:
    """The weights after one task more."""
    plain = plain_training()
    Objective(plain.terms, plain.weights, plain.update, plain.budget, anchor="retain")(model, {"retain": rows}, context)
    return {name: value.cpu().clone() for name, value in snapshot(model.module).items()}
