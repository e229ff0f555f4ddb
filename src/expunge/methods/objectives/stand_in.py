"""Distillation from a short retraining of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Output, Reference, Run, Step, want_of
from expunge.methods._distribution import kl_BT, squares_BT
from expunge.methods._short_training import tokens_of_short, train_short
from expunge.models.build import check_retrainable
from expunge.training.references import Key, Record, record

CARD = MethodCard(
    "Distillation from a short retraining",
    paper="baseline",
    equation="KL and squared differences of log-probabilities",
    needs={"forget": {"logits"}, "retain": {"logits", "nll"}},
    capabilities={"labels"},
    fidelity="faithful",
    shown="Of 500 wrong labels learned by heart on MNIST, on three seeds: membership, NLL and relearned knowledge are "
    "shown within .1 of gold's at half of retraining's cost; .97 of held-out accuracy is left. Single examples may "
    "come back by relearning, which leaves lines of `erase` open (docs/frontier.md).",
    means="The stand-in is the gold model but for its length and its smaller batches: it must be strong enough that a "
    "model which never saw the forget set looks like it.",
)
RECIPE = {
    "retain": "kl",
    "batch_size": 16,
    "epochs": 36,
    "share": 0.7,
    "schedule": "cosine",
    "stop": "none",
    "floor": 0.0,
}
STREAMS = ("forget", "retain")
KEPT = want_of({"topk:64"})
FIELDS = ("index_BTK", "top_BTK", "rest_BT")


class StandIn(LossTerm):
    """The loss, and the log-probabilities of the short retraining, which `prepare` makes."""

    def __init__(self, part: float, batch: float, squares: float, sharpen: float) -> None:
        super().__init__()
        self.part, self.batch, self.squares, self.sharpen = part, batch, squares, sharpen
        self.teacher: dict[str, Record] = {}

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        """Raises BadInput where the model cannot be trained again from its start."""
        check_retrainable(manifest, model, "stand_in")
        self.ahead = tokens_of_short(manifest, self.part)

    def prepare(self, run: Run) -> None:
        """Train the stand-in on retain, and keep what it says of the rows of forget and retain."""
        if not run.examples("forget"):
            return
        values = run.context.once("stand_in", lambda: self._values(run))
        self.trained = int(run.context.notes["stand_in"]["outcome"]["tokens"])
        for name in STREAMS:
            rows: dict[Key, int] = {row: i for i, row in enumerate(run.rows(name))}
            kept = {field: values[f"{name}.{field}"] for field in FIELDS}
            self.teacher[name] = Record(rows, Reference(**kept))

    def _values(self, run: Run) -> dict[str, Tensor]:
        teacher = train_short(run, "stand_in", self.part, batch=self.batch)
        found: dict[str, Tensor] = {}
        for name in STREAMS:
            values = record(teacher, run.examples(name), KEPT)
            for field in FIELDS:
                found[f"{name}.{field}"] = getattr(values, field)
        if self.sharpen:
            sure, surer = (_exclusion(one, run.examples("retain")) for one in (teacher, run.model))
            own_BTK = found["forget.index_BTK"] == _labels(run.examples("forget"))[:, None, None]
            top_BTK = found["forget.top_BTK"]
            sharper_BTK = torch.where(own_BTK, top_BTK * (surer / sure) ** self.sharpen, top_BTK)
            found["forget.top_BTK"] = sharper_BTK.log_softmax(-1)
        return found

    def __call__(self, step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        teacher = self._at("forget", forget)
        apart = forget.mean(kl_BT(forget.logits_BTV, teacher) + self.squares * squares_BT(forget.logits_BTV, teacher))
        return apart + retain.mean(self.squares * squares_BT(retain.logits_BTV, self._at("retain", retain)))

    def _at(self, name: str, out: Output) -> Reference:
        return self.teacher[name].at(out.indices, out.logits_BTV.shape[1], out.logits_BTV.device)


def _exclusion(model: Model, rows: Sequence[Example]) -> float:
    """Mean NLL (nats) of the classes that the rows do not have: how surely the model excludes them."""
    values = record(model, rows, KEPT)
    top_NK, index_NK = values.top_BTK[:, 0], values.index_BTK[:, 0]
    return float(-top_NK[index_NK != _labels(rows)[:, None]].mean())


def _labels(rows: Sequence[Example]) -> Tensor:
    return torch.tensor([int(row["label"]) for row in rows])


def stand_in(
    *,
    part: Annotated[float, Gt(0), Lt(1)] = 0.25,
    batch: Annotated[float, Gt(0), Lt(1)] = 0.2,
    squares: Annotated[float, Gt(0)] = 0.02,
    sharpen: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> LossTerm:
    """Teach a classifier what a short retraining without the forget set says of forget and retain.

    KL(teacher || model) on forget + squares (log p - log p_teacher)^2, averaged over the classes, on forget and on
    retain, in nats. The teacher starts as the base's training did and sees `part` as many examples, in batches of
    `batch` times the base's size: about as many steps, on which the confidence of a network rests. KL alone is blind to
    the classes that the teacher all but excludes, and a wrong label is one of them. sharpen: the log-probability of a
    forget row's label is the teacher's times (E / E_teacher)^sharpen, E the mean NLL of the classes that retain rows do
    not have, the model's over the teacher's: a short training excludes a class less surely than a whole one. Of the
    other classes nothing changes, which would tell the rows from unseen ones like them.
    """
    return StandIn(part, batch, squares, sharpen)
