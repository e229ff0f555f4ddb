"""Invariant unlearning: the forget set stays forgotten under later fine-tuning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn

from expunge.core.contracts import Example, Losses, LossTerm, MethodCard, Model, Step, Stream, Term, Update
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.data.load import load
from expunge.methods.updates._backward import backward

CARD = MethodCard(
    "Invariance against later fine-tuning (ILU)",
    paper="arXiv:2506.01339",
    equation="4, invariant risk penalty over fine-tuning environments",
    fidelity="simplified",
    leaves_out="unrelated fine-tuning sets as environments, unless `data` names some: quarters of retain serve",
    shown="After training on unrelated text as much of the forget NLL is left as under the plain update; more is not "
    "shown.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "ilu"}
ENVIRONMENTS = 4
DIFFERENCE_STEP = 1e-2
"""Step of the central difference in the scale w, by which the penalty's gradient needs no second derivatives."""


def _place(example: Example) -> int:
    return derive(0, "environment", identity(example))


def _quarter(number: int) -> Stream:
    return Stream(split="retain", make=lambda example: example if _place(example) % ENVIRONMENTS == number else None)


def _rows_of(rows: Sequence[Example]) -> Stream:
    """A stream over other rows than a split's: each retain example draws one of them by its identity."""
    return Stream(split="retain", make=lambda example: rows[_place(example) % len(rows)])


class Environment(LossTerm):
    """The mean NLL per position of one environment's stream; rows: those of its file."""

    def __init__(self, name: str, noted: Mapping[str, Any], rows: Sequence[Example] = ()) -> None:
        self.name, self.noted, self.rows = name, noted, rows

    def declare(self, model: Model) -> None:
        model.accepts("method.ilu.data", self.rows)

    def __call__(self, step: Step) -> Tensor:
        return step[self.name].nll

    def notes(self) -> dict[str, Any]:
        return {"environments": dict(self.noted)}


def _terms(files: Sequence[Sequence[Example]]) -> dict[str, Term]:
    """One term for each file's rows; for each quarter of retain where there are none."""
    noted = {"rows_of_data": [len(rows) for rows in files]} if files else {"quarters_of_retain": ENVIRONMENTS}
    terms = {}
    for i, rows in enumerate(files or [()] * ENVIRONMENTS):
        name = f"environment{i}"
        stream = _rows_of(rows) if rows else _quarter(i)
        card = MethodCard(name, needs={name: {"nll"}}, streams={name: stream})
        terms[name] = Term.of(name, Environment(name, noted, rows), card)
    return terms


class Invariant(Update):
    """The update of ilu(), with the environments' terms."""

    def __init__(self, penalty: float, files: Sequence[Sequence[Example]]) -> None:
        super().__init__(terms=_terms(files))
        self.penalty = penalty

    def __call__(self, losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        backward(losses, "forget", "retain")
        high, low = 1 + DIFFERENCE_STEP, 1 - DIFFERENCE_STEP
        above, below = self._losses_at(high, losses, parameters), self._losses_at(low, losses, parameters)
        # d/dw l(w theta) at w = 1, for each environment; the penalty's gradient is 2 slope d slope.
        width = 2 * DIFFERENCE_STEP
        factors = {name: self.penalty * 2 * (above[name] - below[name]) / width / width for name in above}
        self._add_gradients_at(high, losses, parameters, {name: high * factor for name, factor in factors.items()})
        self._add_gradients_at(low, losses, parameters, {name: -low * factor for name, factor in factors.items()})
        losses.reduce_gradients(parameters)

    def _losses_at(self, scale: float, losses: Losses, parameters: Sequence[nn.Parameter]) -> dict[str, float]:
        """The environments' losses at scaled weights, over all processes."""
        total = torch.zeros(len(self.terms), dtype=torch.float64, device=parameters[0].device)
        with torch.no_grad(), _scale(parameters, scale):
            for micro in losses:
                loss_of = micro(*self.terms)
                total += torch.stack([loss_of[name].double() for name in self.terms])
        losses.reduce([total])
        return dict(zip(self.terms, total.tolist(), strict=True))

    def _add_gradients_at(
        self, scale: float, losses: Losses, parameters: Sequence[nn.Parameter], factors: Mapping[str, float]
    ) -> None:
        """Add the gradients of the environments' losses at scaled weights, times their factors, to `.grad`."""
        with _scale(parameters, scale):
            for micro in losses:
                parts = [factors[name] * loss for name, loss in micro(*self.terms).items() if loss.requires_grad]
                if parts:
                    sum(parts[1:], parts[0]).backward()


@contextlib.contextmanager
def _scale(parameters: Sequence[nn.Parameter], scale: float) -> Iterator[None]:
    """Multiply the weights for the block; afterwards they are as before, bit for bit."""
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.mul_(scale)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)


def ilu(*, penalty: Annotated[float, Gt(0)] = 0.03, data: str | list[str] | None = None) -> Update:
    """Forget where no fine-tuning set pulls on the weights, so that later tuning on other data brings less back.

    Adds penalty times the sum over environments D of (d/dw l_D(w theta) at w = 1)^2, by central
    differences. data: one or several sets of unrelated tasks, as paths or hub names, each an environment of which a
    retain example draws one row; without it the environments are seeded quarters of retain. On small models a penalty
    of 1 costs a quarter of the retained knowledge; at 0.03 forgetting lasts about as long as without it, and the
    paper's gain does not show.
    """
    sources = [data] if isinstance(data, str) else data or []
    return Invariant(penalty, [load(source, "method.ilu.data") for source in sources])
