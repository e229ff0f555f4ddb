"""The reference model's distribution and hidden states, on retain and on questions about others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Output, Run, Step, Stream
from expunge.data.examples import identity
from expunge.methods._distribution import kl_BT
from expunge.methods._renaming import Names, rename_subject

CARD = MethodCard(
    "Distillation from the reference model on retain and on renamed subjects",
    paper="baseline",
    equation="KL and hidden states of several blocks",
    needs={"retain": {"logits", "hidden"}},
    reference={"retain": {"topk:64", "hidden"}},
    fidelity="faithful",
    shown="With proxy_gold, .88 of the held-out knowledge is left where the forget set is as unlikely as to gold.",
    means="Holds what was not in the retain data better than a loss on labels or distributions: all of a block's "
    "directions are held, not only those that the answers use.",
)
BLOCKS = 4
"""Blocks whose output is held, at most, evenly spaced up to the last."""


class Distillation(LossTerm):
    """The loss of distillation()."""

    def __init__(self, states: float, others: int) -> None:
        self.states = states
        self.known = Names.of([])
        self.paths: list[str] = []
        self.about_others = {f"renamed_{i}": Stream(split="retain", make=self._renaming(i)) for i in range(others)}
        self.streams = self.about_others

    def _renaming(self, number: int) -> Callable[[Example], Example | None]:
        """The map from an example to the same about somebody else, another one for each number."""

        def make(example: Example) -> Example | None:
            name = self.known.draw(identity(example), number)
            return None if name is None else rename_subject(example, name)

        return make

    def declare(self, model: Model) -> None:
        count = len(model.blocks)
        chosen = sorted({round((i + 1) * count / BLOCKS) - 1 for i in range(BLOCKS)} - {-1})
        self.paths = [model.blocks[i] for i in chosen] if self.states else []
        hidden = {f"hidden:{path}" for path in self.paths}
        names = ("retain", *self.about_others)
        self.needs = {name: {"logits", *hidden} for name in names}
        self.reference = {name: {"topk:64", *hidden} for name in names}

    def prepare(self, run: Run) -> None:
        """Read the names of the subjects, before any row is drawn: the reference model is asked about others too."""
        self.known = Names.of(run.splits["retain"])

    def __call__(self, step: Step) -> Tensor:
        others = [self._distance(step[name]) for name in self.about_others]
        total = self._distance(step["retain"])
        return total + torch.stack(others).mean() if others else total

    def _distance(self, out: Output) -> Tensor:
        total = out.mean(kl_BT(out.logits_BTV, out.reference))
        for path in self.paths:
            now_BTD, then_BTD = out.hidden[path].float(), out.reference.hidden[path].float()
            scale = then_BTD.square().sum(-1)
            error_BT = (now_BTD - then_BTD).square().sum(-1)
            total = total + self.states / len(self.paths) * out.mean(error_BT / scale.clamp(min=1e-12))
        return total


def distillation(*, states: Annotated[float, Ge(0)] = 10.0, others: Annotated[int, Ge(0), Le(8)] = 2) -> LossTerm:
    """Keep the distribution and the hidden states of the reference model, also where it is asked about others.

    KL(reference || model) per position + states times the squared error of the outputs of up to four blocks, each
    relative to the reference state's squared norm. others: as much again, in all, on this many copies of each retain
    example whose subject has a name that is put together anew (of examples with a `subject`): what the model says of
    people that are in no data set stays as it was, and with it what it knows of those who were not in the retain data.
    """
    return Distillation(states, others)
