"""One task after another, in a hypernetwork that goes on writing what it wrote for the tasks before."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step, Term
from expunge.core.errors import BadInput
from expunge.methods._tasks import Held, check_tasks, tasks_of
from expunge.methods.objective import Objective, plain_training
from expunge.models.weights import snapshot
from expunge.training.checkpoint import restore

NAME = "tasks"
HELD = MethodCard("Weights written for other tasks are held", needs={"retain": ()})


def check(model: Model, data: Sequence[Example], **options: object) -> None:
    """Raises BadInput unless a hypernetwork writes the model's weights, and there is a row to learn."""
    check_tasks(model, f"trainer.{NAME}")
    if not len(data):
        raise BadInput.of("data", "", "has no row", "give rows of one task or more")


def train(fresh: Model, data: Sequence[Example], context: Context, *, hold: Annotated[float, Ge(0)] = 0.1) -> Model:
    """Learn the tasks in the order of their numbers, by the model's own loss, with the budget's epochs for each.

    hold: weight of the mean squared distance, over the tasks known before, between the weights that the hypernetwork
    writes and those that it wrote (1906.00695, equation 2); 0 lets earlier tasks go. Raises BadInput.
    """
    check(fresh, data)
    by_task: dict[int, list[Example]] = {}
    for row, task in zip(data, tasks_of(fresh, data), strict=True):
        by_task.setdefault(task, []).append(row)
    for task in sorted(by_task):
        learned = context.once(f"task-{task}", functools.partial(_learn, fresh, by_task[task], task, context, hold))
        restore(fresh.module, learned, "")
    parts = [note["outcome"] for name, note in context.notes.items() if name.startswith("learn-")]
    sums = {key: sum(part[key] for part in parts) for key in ("steps", "tokens", "seconds")}
    context.notes["outcome"] = {**parts[-1], **sums}
    return fresh


def _learn(model: Model, rows: list[Example], task: int, context: Context, hold: float) -> dict[str, Tensor]:
    """The weights after one task more, which is known from then on."""
    plain = plain_training()
    terms = {**plain.terms, "hold": Term.of("hold", Others(task), HELD, hold)}
    whole = Objective(terms, plain.weights, plain.update, plain.budget, anchor="retain")
    whole(model, {"retain": rows}, context.child(f"learn-{task}"))
    network: Any = model.module
    network.known[task] = True
    return {name: value.cpu().clone() for name, value in snapshot(model.module).items()}


class Others(LossTerm):
    """The distance of what is written for other known tasks from what was."""

    def __init__(self, task: int) -> None:
        super().__init__()
        self.task, self.held = task, Held()

    def prepare(self, run: Run) -> None:
        self.network: Any = run.model.module
        self.held.begin(run, {self.task})

    def __call__(self, step: Step) -> Tensor:
        return step.share * self.held.distance(self.network)
