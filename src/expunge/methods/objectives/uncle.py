"""UnCLe: a task is unlearned without data, by aligning the weights that are written for it to noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Run, Step
from expunge.methods._tasks import Held, check_tasks, tasks_of

CARD = MethodCard(
    "UnCLe: data-free unlearning in a hypernetwork",
    paper="arXiv:2509.17530",
    equation="4 (mean squared error to noise, with the weights of other tasks held)",
    needs={"forget": ()},
    capabilities={"tasks"},
    fidelity="variant",
    leaves_out="networks with convolutions and batch statistics, and one hypernetwork for all kinds of weights: each "
    "layer of a perceptron is written by its own",
    means="Of the forget rows the number of their task alone is read. The noise has mean 0, so that the weights of the "
    "task go to 0, and its answers to the same for every class. The hypernetwork may still be able to write them: an "
    "attacker who trains a new vector of the task finds some of it.",
    shown="Of three tasks of permuted digits the one unlearned stays at chance while two more are learned, on three "
    "seeds, and the others lose three points at most; random labels leave three in ten of it. A new vector of the "
    "task, trained on a hundred rows, brings back .21 to .58 (gold .08 to .20).",
)
RECIPE = {"retain": "none", "stop": "none", "floor": 0.0, "epochs": 4, "share": 1.0}


class Noise(LossTerm):
    """The loss, and what the hypernetwork wrote for the other tasks."""

    def __init__(self, hold: float, draws: int, spread: float) -> None:
        super().__init__()
        self.hold, self.draws, self.spread, self.held = hold, draws, spread, Held()
        self.tasks: list[int] = []

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        check_tasks(model, "method.uncle")

    def prepare(self, run: Run) -> None:
        """Note the tasks of the forget rows, and what is written for the others."""
        self.network: Any = run.model.module
        self.tasks = sorted(set(tasks_of(run.model, run.examples("forget"))))
        self.held.begin(run, self.tasks)

    def __call__(self, step: Step) -> Tensor:
        now_TP = self.network.write_all(self.tasks)
        noise = self.spread * torch.randn(self.draws, *now_TP.shape, generator=step.generator)
        away = (now_TP - noise.to(now_TP)).square().mean(0).sum() / max(1, len(self.tasks))
        return step.share * (away + self.hold * self.held.distance(self.network))

    def after_step(self, index: int, notes: Mapping[str, float]) -> None:
        """A task that is being unlearned is held no more by what is learned later."""
        self.network.known[self.tasks] = False


def uncle(
    *,
    hold: Annotated[float, Ge(0)] = 1.0,
    draws: Annotated[int, Ge(1)] = 4,
    spread: Annotated[float, Gt(0)] = 0.01,
) -> LossTerm:
    """Unlearn tasks of a hypernetwork without their data: the weights that it writes for them approach noise.

    ||w_u - z||^2, the mean over `draws` of z ~ N(0, spread^2) and over the tasks of the forget rows, + hold
    ||w_i - w_i before||^2, the mean over the other known tasks; w: all weights written for a task.
    """
    return Noise(hold, draws, spread)
