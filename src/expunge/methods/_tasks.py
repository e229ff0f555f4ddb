"""The weights that a hypernetwork writes for the tasks that it knows, held while it changes for others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from expunge.core.contracts import Example, Model, Run
from expunge.core.errors import BadInput


def check_tasks(model: Model, where: str) -> None:
    """Raises BadInput unless a hypernetwork writes the model's weights for each task."""
    if "tasks" not in model.capabilities:
        why = "needs a hypernetwork, which writes the weights for each task"
        fix = "write model: {factory: expunge.models.networks:Hypernetwork, arguments: {inputs: 64}}"
        raise BadInput.of(where, type(model.module).__name__, why, fix)


def tasks_of(model: Model, rows: Iterable[Example]) -> list[int]:
    """The numbers of each row's task."""
    network: Any = model.module
    given = list(rows)
    return [int(task) for task in network.tasks_of(model.collate(given).inputs["x"]).tolist()] if given else []


class Held:
    """The weights written for the known tasks but some, as they were when the run began."""

    def __init__(self) -> None:
        self.tasks: list[int] = []
        self.before_TP = torch.zeros(0)

    def begin(self, run: Run, but: Collection[int]) -> None:
        """Read what the run's hypernetwork writes now; but: the tasks that are not to be held."""
        network: Any = run.model.module
        self.tasks = [task for task in network.known.nonzero()[:, 0].tolist() if task not in but]
        with torch.no_grad():
            self.before_TP = network.write_all(self.tasks)

    def distance(self, network: Any) -> Tensor:
        """Mean over the tasks held of the squared distance of the weights written now from those before; 0 for none."""
        apart_TP = network.write_all(self.tasks) - self.before_TP
        return apart_TP.square().sum() / max(1, len(self.tasks))
