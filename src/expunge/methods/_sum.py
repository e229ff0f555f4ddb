"""Two forget terms as one, so that updates which treat the forget term apart treat their sum so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from expunge.core.contracts import Example, LossTerm, Model, Needs, Run, Step, Stream, Term
from expunge.core.errors import BadInput

SECOND = "beside."
"""Beginning of the second term's names in a checkpoint."""


class Sum(LossTerm):
    """first + weight * second, weight being the second term's own."""

    def __init__(self, first: Term, second: Term, where: str) -> None:
        super().__init__()
        self.terms, self.where = (first, second), where
        self.reads = {*first.loss.reads, *second.loss.reads}
        self._gather()

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        for term in self.terms:
            term.loss.fits(model, manifest)

    def fits_rows(self, splits: Mapping[str, Sequence[Example]]) -> None:
        for term in self.terms:
            term.loss.fits_rows(splits)

    def declare(self, model: Model) -> None:
        for term in self.terms:
            term.loss.declare(model)
        self._gather()

    def _gather(self) -> None:
        """Set the needs and streams of both. Raises BadInput where they mean different examples by one name."""
        first, second = self.terms
        self.needs = _unite_needs(first.needs, second.needs)
        self.reference = _unite_needs(first.reference, second.reference)
        for name in {*first.streams} & {*second.streams}:
            if first.streams[name] != second.streams[name]:
                why = f"makes examples called {name!r}, and so does {first.name}"
                raise BadInput.of(self.where, second.name, why, "choose another objective")
        self.streams: Mapping[str, Stream] = {**first.streams, **second.streams}

    def prepare(self, run: Run) -> None:
        for term in self.terms:
            term.loss.prepare(run)
        self.trained = sum(term.loss.trained for term in self.terms)

    def __call__(self, step: Step) -> Tensor:
        first, second = self.terms
        return first.loss(step) + second.weight * second.loss(step)

    def after_step(self, index: int, notes: Mapping[str, float]) -> None:
        for term in self.terms:
            term.loss.after_step(index, notes)

    def notes(self) -> dict[str, Any]:
        first, second = self.terms
        return {**first.loss.notes(), **second.loss.notes()}

    def state_dict(self) -> dict[str, Any]:
        first, second = self.terms
        others = {f"{SECOND}{name}": value for name, value in second.loss.state_dict().items()}
        return {**first.loss.state_dict(), **others}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        first, second = self.terms
        first.loss.load_state_dict({name: value for name, value in state.items() if not name.startswith(SECOND)})
        second.loss.load_state_dict(dict(_second(state)))


def _second(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name.removeprefix(SECOND), value) for name, value in state.items() if name.startswith(SECOND))


def _unite_needs(one: Needs, other: Needs) -> dict[str, set[str]]:
    """Stream -> the channels that either asks for."""
    return {name: {*one.get(name, ()), *other.get(name, ())} for name in {**one, **other}}
