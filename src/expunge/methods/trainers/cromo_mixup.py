"""Continual training of an encoder, in which pictures of earlier tasks are mixed into those of the present one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step, Term
from expunge.core.errors import BadInput
from expunge.core.random import derive, permutation
from expunge.methods.objective import Objective, plain_training
from expunge.models.weights import snapshot
from expunge.training.checkpoint import restore

NAME = "cromo_mixup"
MIXED = MethodCard("Mixtures with earlier tasks", needs={"retain": {"nll"}})


def check(model: Model, data: Sequence[Example], *, by: str = "task", **options: object) -> None:
    """Raises BadInput unless the model is an encoder of pictures and every row says of which task it is."""
    if "embedding" not in model.capabilities or "views" not in model.collate(list(data[:1])).inputs:
        fix = "write model: {encoder: Pictures}, or leave the trainer out"
        raise BadInput.of("trainer", NAME, "mixes views of pictures, which an encoder of ours makes", fix)
    if lost := next((i + 1 for i, row in enumerate(data) if by not in row), 0):
        raise BadInput.of(f"trainer.{NAME}.by", by, f"is missing in row {lost}", "name a field that all rows have")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    by: str = "task",
    memory: Annotated[int, Ge(0)] = 50,
    weight: Annotated[float, Ge(0)] = 1.0,
) -> Model:
    """Learn the tasks one after another, with the budget's epochs for each (CroMo-Mixup, arXiv:2407.12188).

    by: the field that names a row's task; tasks come in sorted order. memory: rows kept of each earlier task, drawn by
    seed; 0 keeps none. The loss of a batch is L(x_1, x_2) + weight/2 sum_k [s L(m_k, x_k) + (1 - s) L(m_k, o_k)]: L
    the pretext's own, x_k and o_k views k of a picture and of one from memory, m_k = s x_k + (1 - s) o_k, and s uniform
    for each step. All are embedded by the network as it is, as in the authors' code. Raises BadInput.
    """
    check(fresh, data, by=by)
    tasks: dict[str, list[Example]] = {}
    for row in sorted(data, key=lambda row: str(row[by])):
        tasks.setdefault(str(row[by]), []).append(row)
    old: list[Example] = []
    for number, rows in enumerate(tasks.values()):
        learn = functools.partial(_learn, fresh, rows, old, context.child(f"task-{number}"), weight)
        restore(fresh.module, context.once(f"after-{number}", learn), "")
        order = permutation(len(rows), context.seed, context.stage, "memory", number)
        old = [*old, *(rows[i] for i in order[:memory])]
    parts = [context.notes[f"task-{number}"]["outcome"] for number in range(len(tasks))]
    sums = {key: sum(part[key] for part in parts) for key in ("steps", "tokens", "seconds")}
    context.notes["outcome"] = {**parts[-1], **sums}
    return fresh


def _learn(model: Model, rows: list[Example], old: list[Example], context: Context, weight: float) -> dict[str, Tensor]:
    """The weights after one task more."""
    plain = plain_training()
    terms = {**plain.terms, "mixed": Term.of("mixed", Mixed(rows, old), MIXED, weight)} if old else plain.terms
    Objective(terms, plain.weights, plain.update, plain.budget, anchor="retain")(model, {"retain": rows}, context)
    return {name: value.cpu().clone() for name, value in snapshot(model.module).items()}


class Mixed(LossTerm):
    """The loss of mixtures of a batch's pictures and pictures of earlier tasks."""

    def __init__(self, rows: Sequence[Example], old: Sequence[Example]) -> None:
        super().__init__()
        self.rows, self.old = rows, old

    def prepare(self, run: Run) -> None:
        self.model: Any = run.model

    def __call__(self, step: Step) -> Tensor:
        now = step["retain"]
        if not now.indices:
            return now.mean(now.nll_B)
        share = float(torch.rand((), generator=step.generator))
        drawn = torch.randint(len(self.old), (len(now.indices),), generator=step.generator).tolist()
        x_2BCHW = self._views([self.rows[i] for i in now.indices], step.index)
        o_2BCHW = self._views([self.old[i] for i in drawn], step.index)
        count = x_2BCHW.shape[1]
        all_R = torch.cat([x_2BCHW, o_2BCHW, share * x_2BCHW + (1 - share) * o_2BCHW]).flatten(0, 1)
        x_2BD, o_2BD, mixed_2BD = self.model.module(all_R).unflatten(0, (3, 2, count))
        losses_B = torch.zeros(count, device=x_2BD.device)
        for mixed_BD, x_BD, o_BD in zip(mixed_2BD, x_2BD, o_2BD, strict=True):
            losses_B = (
                losses_B + share * self._pair_loss(mixed_BD, x_BD) + (1 - share) * self._pair_loss(mixed_BD, o_BD)
            )
        return now.mean(losses_B / 2)

    def _pair_loss(self, first_BD: Tensor, second_BD: Tensor) -> Tensor:
        """[B] the pretext's loss of these as the two views of the same pictures."""
        found: Tensor = self.model.pretext.losses(self.model.module.head, torch.stack([first_BD, second_BD]))
        return found

    def _views(self, rows: Sequence[Example], index: int) -> Tensor:
        """[2, B, C, H, W] a pair of views of each row, drawn anew for the step."""
        drawn = [{**row, "draw": derive(index, "mixed")} for row in rows]
        views_BP2CHW = self.model.collate(drawn).inputs["views"]
        return views_BP2CHW[:, 0].transpose(0, 1).to(next(self.model.module.parameters()).device)
