"""UNDO: unlearn, perturb the weights, and distil the unlearned model into what is left."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Example, LossTerm, Method, MethodCard, Model, Reference, Run, Step, Term, want_of
from expunge.core.errors import BadInput
from expunge.methods._distribution import kl_BT, squares_BT
from expunge.methods._level import class_levels, forgotten_classes, set_class_levels
from expunge.methods.objective import Objective
from expunge.methods.updates.plain import plain
from expunge.methods.weights.all import all as all_weights
from expunge.models.build import again, check_again
from expunge.models.family import family
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore
from expunge.training.references import Record

CARD = MethodCard(
    "UNDO: unlearn, noise, distil on outputs",
    paper="arXiv:2506.06278",
    equation="section 4, algorithm 1",
    needs={"forget": {"logits"}},
    optional=("retain", "reference"),
    wraps={"weights"},
    means="The more of the weights is noise, the less comes back by relearning, and the more has to be taught again: "
    "what was in no row of retain, forget or reference is lost with what had to go.",
    fidelity="variant",
    shown="On two small worlds, from a fifth of noise to three fifths, relearned knowledge falls by a fifth at least, "
    "and more than a third of the held-out knowledge goes. Of a class of pictures, around `stand_in`, with `level` "
    "and without the forget rows, every line of `erase` but membership is shown at half of retraining's cost, and "
    "membership is open at worst on the seeds that judge; on another division it is refuted.",
    leaves_out="Xavier noise: each matrix has noise of its own standard deviation, or its first weights",
)
RECIPE = {"inner": "npo"}
ROWS = "undo"
"""The split of all that the student is taught on, and its stream."""
BATCH = 16
MEASURED = 1000
"""Rows at most whose mean length the plan takes for all of them."""
Towards = Literal["noise", "start"]


class Student(LossTerm):
    """KL to the unlearned model, whose values `prepare` reads before it moves the weights towards `start`."""

    def __init__(self, start: Mapping[str, Tensor], alpha: float, squares: float = 0.0) -> None:
        super().__init__(needs={ROWS: {"logits"}})
        self.start, self.alpha, self.squares = start, alpha, squares
        self.teacher = Record({}, Reference())

    def prepare(self, run: Run) -> None:
        """Read the teacher, and perturb it: also on resume, where a checkpoint's weights come after this."""
        values = run.record(run.examples(ROWS), want_of({"topk:64"}))
        self.teacher = Record({row: i for i, row in enumerate(run.rows(ROWS))}, values)
        with torch.no_grad():
            for name, parameter in run.model.module.named_parameters():
                if name in self.start:
                    parameter.lerp_(self.start[name].to(parameter), self.alpha)

    def __call__(self, step: Step) -> Tensor:
        rows = step[ROWS]
        teacher = self.teacher.at(rows.indices, rows.mask_BT.shape[1], rows.logits_BTV.device)
        return rows.mean(kl_BT(rows.logits_BTV, teacher) + self.squares * squares_BT(rows.logits_BTV, teacher))


class Undo(Method):
    """The method of undo()."""

    def __init__(
        self,
        inner: Method,
        student: Budget,
        *,
        alpha: float,
        towards: Towards,
        squares: float,
        level: bool,
        taught: Sequence[str],
    ) -> None:
        self.inner, self.alpha, self.towards, self.squares, self.student = inner, alpha, towards, squares, student
        self.level, self.taught = level, taught

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        if "logits" not in family(model.family).gives:
            title = family(model.family).title
            why = f"needs a distribution to distil, which no {title} gives"
            raise BadInput.of("method", "undo", why, "choose another method")
        if self.towards == "start":
            if not manifest:
                fix = "take towards: noise"
                raise BadInput.of("method.undo.towards", self.towards, "needs the model's training manifest", fix)
            if "budget" in manifest:  # an embedded world's has none before it is built
                check_again(manifest, model)
        if self.level and not forgotten_classes(splits):
            why = "sets the bias of classes that forget alone has, and there are none"
            raise BadInput.of("method.undo.level", "true", why, "leave it out")
        taught = [splits[name] for name in self.taught if name in splits]
        rows = list(itertools.islice(itertools.chain.from_iterable(taught), MEASURED))
        mean = sum(model.length(row) for row in rows) / max(1, len(rows))
        self.ahead = round((self.student.epochs or 0) * sum(map(len, taught)) * mean)
        return self.inner.fits(model, splits, manifest)

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)

        def unlearn() -> dict[str, Tensor]:
            changed = self.inner(model, splits, context.child("teacher"))
            fold(changed.module)
            return {name: value.cpu().clone() for name, value in snapshot(changed.module).items()}

        taught = context.once("teacher", unlearn)
        restore(model.module, taught, "")
        if context.budget.steps == 0:
            return model
        classes = forgotten_classes(splits) if self.level else []
        levels = class_levels(model, splits["forget"], classes) if classes else {}
        rows = [row for name in self.taught for row in splits.get(name, [])]
        term = Term.of(ROWS, Student(self._start(model, context), self.alpha, self.squares), CARD)
        # A forget term by its name: statistics of normalisation layers stay, and the curve shows the forget set.
        student = Objective({"forget": term}, all_weights(), plain(), anchor=ROWS)
        budget = self.student.over(Budget(precision=context.budget.precision, memory=context.budget.memory))
        own = context.child("student", budget=budget, watch=None)
        changed = student(model, {**splits, ROWS: rows}, own)
        context.notes["outcome"] = own.notes["outcome"]
        if levels:
            context.notes["level"] = set_class_levels(changed, splits["forget"], levels)
        return changed

    def _start(self, model: Model, context: Context) -> dict[str, Tensor]:
        """The matrices that the student's are moved to: noise, or those that the base's training began with."""
        matrices = {name: value.detach() for name, value in model.module.named_parameters() if value.dim() > 1}
        if self.towards == "start":
            assert context.manifest is not None, "fits() refuses a model without one"
            first = dict(again(context.manifest, model).module.named_parameters())
            return {name: first[name].detach() for name in matrices if name in first}
        generator = context.generator("noise")
        return {
            name: torch.randn(value.shape, generator=generator) * float(value.float().std())
            for name, value in matrices.items()
        }


def undo(
    *,
    inner: Method,
    alpha: Annotated[float, Gt(0), Le(1)] = 0.3,
    towards: Towards = "noise",
    passes: Annotated[int, Ge(1), Le(1000)] = 8,
    share: Annotated[float, Gt(0), Le(10)] = 0.5,
    squares: Annotated[float, Ge(0)] = 0.0,
    level: bool = False,
    distil_forget: bool = True,
) -> Method:
    """Unlearn with the inner method, replace a share of the weights by noise, and distil the model into the rest.

    Each matrix becomes (1 - alpha) its own + alpha noise of its own standard deviation, or alpha the weights that its
    training began with (towards: start; needs the training manifest). Then KL(teacher || student) + squares (log p -
    log p_teacher)^2 per position (nats) on retain, forget and `reference` data, `passes` times in batches of 16, at
    `share` of the base's learning rate with a cosine. The teacher is the unlearned model; its values are cached. KL is
    blind to what the teacher all but excludes, as a classifier does a class that it forgot; the squares are not. level:
    at the end move the head's bias of each class that forget alone has until it is as unlikely as for the teacher, by
    the median NLL of its rows: the features learn nothing by it. distil_forget: whether forget rows are among those
    that the student is taught on. Without them it is as unsure of a forget row as of an unseen one of its class.
    """
    budget = Budget(
        epochs=passes,
        batch_size=BATCH,
        share=share,
        schedule="cosine",
        warmup=0.1,
        weight_decay=0.0,
        stop="none",
        floor=0.0,
    )
    taught = ("retain", "forget", "reference") if distil_forget else ("retain", "reference")
    return Undo(inner, budget, alpha=alpha, towards=towards, squares=squares, level=level, taught=taught)
