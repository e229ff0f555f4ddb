"""The reference model's distribution and hidden states, on retain and on what it says of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Output, Run, Step, Stream
from expunge.core.random import permutation
from expunge.data.examples import identity
from expunge.methods._distribution import kl_BT
from expunge.methods._recall import shared_recall
from expunge.methods._renaming import Names, rename_subject

CARD = MethodCard(
    "Distillation from the reference model on retain and on its own answers about others",
    paper="baseline",
    equation="KL and hidden states of several blocks; pseudorehearsal (Robins 1995)",
    needs={"retain": {"logits", "hidden"}},
    reference={"retain": {"topk:64", "hidden"}},
    fidelity="faithful",
    shown="With proxy_gold, .93 of the held-out knowledge is left where the forget set is as unlikely as to gold.",
    means="Holds what was not in the retain data better than a loss on labels or distributions: all of a block's "
    "directions are held, not only those that the answers use, and facts that the model itself comes up with.",
    distributed=True,
)
CALLS_EACH = 12
"""Questions that follow from one retain example, at most."""
BLOCKS = 4
"""Blocks whose output is held, at most, evenly spaced up to the last."""
Change = Callable[[Example], Example | None]


class Distillation(LossTerm):
    """The loss of distillation()."""

    def __init__(self, states: float, others: int, recalled: int, calls: int) -> None:
        self.states, self.calls = states, calls if recalled else 0
        self.known = Names.of([])
        self.recalled: list[Example] = []
        self.places: dict[str, int] = {}
        self.paths: list[str] = []
        copies = {f"renamed_{i}": self._renaming(i) for i in range(others)}
        copies |= {f"recalled_{i}": self._recalling(i) for i in range(recalled)}
        self.copies = {name: Stream(split="retain", make=make) for name, make in copies.items()}
        self.streams = self.copies

    def _renaming(self, number: int) -> Change:
        """The map from an example to the same about somebody else, another one for each number."""

        def make(example: Example) -> Example | None:
            name = self.known.draw(identity(example), number)
            return None if name is None else rename_subject(example, name)

        return make

    def _recalling(self, number: int) -> Change:
        """The map from an example to one that the model recalled, another one for each number."""

        def make(example: Example) -> Example | None:
            place = self.places.get(identity(example), 0) + number * len(self.places)
            return self.recalled[place % len(self.recalled)] if self.recalled else None

        return make

    def declare(self, model: Model) -> None:
        count = len(model.blocks)
        chosen = sorted({round((i + 1) * count / BLOCKS) - 1 for i in range(BLOCKS)} - {-1})
        self.paths = [model.blocks[i] for i in chosen] if self.states else []
        hidden = {f"hidden:{path}" for path in self.paths}
        names = ("retain", *self.copies)
        self.needs = {name: {"logits", *hidden} for name in names}
        self.reference = {name: {"topk:64", *hidden} for name in names}

    def prepare(self, run: Run) -> None:
        """Read the names of the subjects and let the reference model answer, before any row is drawn."""
        retain = run.splits["retain"]
        self.known = Names.of(retain)
        self.places = {identity(row): place for place, row in enumerate(retain)}
        order = permutation(len(retain), run.context.seed, "recall")
        count = min(self.calls, CALLS_EACH * len(order))
        calls = [(retain[order[i % len(order)]], i // len(order)) for i in range(count)]
        questions = [self._renaming(number)(row) or row for row, number in calls if "question" in row]
        if questions:
            seed = run.context.derive("recall") % 2**63
            forget = run.splits.get("forget", [])
            found = shared_recall(run.model, questions, retain, forget, seed, run.context.compute)
            self.recalled = found[: sum(name.startswith("recalled") for name in self.copies) * len(retain)]

    def __call__(self, step: Step) -> Tensor:
        live = [step[name] for name in self.copies if step[name].examples]
        distances = [self._distance(out) for out in (step["retain"], *live)]
        return min(2, len(distances)) * torch.stack(distances).mean()

    def _distance(self, out: Output) -> Tensor:
        total = out.mean(kl_BT(out.logits_BTV, out.reference))
        for path in self.paths:
            now_BTD, then_BTD = out.hidden[path].float(), out.reference.hidden[path].float()
            scale = then_BTD.square().sum(-1)
            error_BT = (now_BTD - then_BTD).square().sum(-1)
            total = total + self.states / len(self.paths) * out.mean(error_BT / scale.clamp(min=1e-12))
        return total

    def notes(self) -> dict[str, Any]:
        """The number of different answers that the model came up with."""
        return {"distillation": {"recalled": len(self.recalled)}}


def distillation(
    *,
    states: Annotated[float, Ge(0)] = 15.0,
    others: Annotated[int, Ge(0), Le(8)] = 0,
    recalled: Annotated[int, Ge(0), Le(8)] = 2,
    calls: Annotated[int, Ge(1)] = 2304,
) -> LossTerm:
    """Keep the distribution and the hidden states of the reference model, also where it answers about others.

    KL(reference || model) per position + states times the squared error of the outputs of up to four blocks, each
    relative to the reference state's squared norm: the mean over retain and its copies, twice where there are any.
    Copies per retain example: `recalled` answers that the reference model gives when asked about names that are put
    together anew (of examples with a `subject`; else the question as it is), the most certain of `calls` answers (12 to
    each retain example, at most) of which neither retain nor forget tells the facts, since nobody named them; and
    `others` copies of question and answer about such a name.
    """
    return Distillation(states, others, recalled, calls)
