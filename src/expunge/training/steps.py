"""One optimiser step: the rows that meet, one fused forward over all streams, the terms' losses."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core import processes
from expunge.core.card import Example, Stream
from expunge.core.channels import ORIGIN
from expunge.core.contracts import NOT_ASKED, Batch, Model, Output, Reference, Step, Term, Want, want_of
from expunge.core.errors import BadInput
from expunge.core.random import derive, generator, seed_torch
from expunge.data.examples import with_draw
from expunge.data.pairing import Pairing
from expunge.models.passes import outputs
from expunge.training.parts import Cutting, Place
from expunge.training.references import Key, Record, join_outputs
from expunge.training.sharding import is_sharded


@dataclass
class Streams:
    """The terms' needs: the streams, their wants, and those of the reference model."""

    streams: dict[str, Stream]
    wants: dict[str, Want]
    references: dict[str, Want]
    blanks: dict[str, Output] = field(default_factory=dict)
    """Stream -> zero rows of what is wanted of it, once a step has needed them."""

    @classmethod
    def of(cls, terms: Mapping[str, Term]) -> Streams:
        streams: dict[str, Stream] = {}
        wants: dict[str, Want] = {}
        references: dict[str, Want] = {}
        for term in terms.values():
            for asked, found in ((term.needs, wants), (term.reference, references)):
                for name, channels in asked.items():
                    streams[name] = term.streams.get(name) or streams.get(name) or Stream(split=name)
                    found[name] = found.get(name, Want(frozenset())) | want_of(channels)
        return cls(streams, wants, references)


@dataclass
class Rows:
    """The rows of one stream in one micro-batch."""

    read: bool
    """Whether the model is asked for them: some are there, and not the reference's values alone are wanted."""
    examples: list[Example]
    kept: list[int]
    """Places within the step's rows that `make` did not drop."""
    indices: list[int]
    """Rows of the split."""


def by_step(model: Model) -> bool:
    """Whether what a model says of a row depends on the step: on its draws, or on the other rows of its batch."""
    return model.stochastic or model.together > 0


@dataclass
class StepLosses:
    """The losses of one optimiser step; iterating gives one callable a micro-batch.

    Each call is a new forward with the SAME draws (dropout, the step's generator); names limit the
    terms and so the forwards.
    """

    model: Model
    terms: Mapping[str, Term]
    streams: Streams
    splits: Mapping[str, Sequence[Example]]
    pairing: Pairing
    index: int
    records: Mapping[str, Record]
    autocast: Callable[[], AbstractContextManager[Any]]
    cutting: Cutting = field(default_factory=Cutting)
    notes: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        drawn = {name: self._draw(name) for name in self.streams.streams}
        count = len(self.pairing.rows(self.pairing.anchor, self.index))
        whole = self.cutting.cut([self._place(drawn, place) for place in range(count)])
        # Each process has its share of every part: all make the same number of forwards.
        parts = [part[processes.rank() :: processes.world()] for part in whole]
        self.parts = [{name: self._rows(name, drawn[name], part) for name in drawn} for part in parts]
        self.shares = [len(part) / max(1, count) for part in parts]
        self._seen: set[tuple[int, str]] = set()
        self._batches: dict[tuple[int, tuple[str, ...]], Batch] = {}
        self._count()
        # Before any update can hook the module: the forward that shapes the zero rows is no part of a step.
        # Of a split model, all processes make it.
        for name in [
            name for name in self.streams.streams if self._split or any(not p[name].examples for p in self.parts)
        ]:
            if name not in self.streams.blanks:
                self.streams.blanks[name] = self._blank(name)

    def _draw(self, name: str) -> list[Example | None]:
        """The stream's example at each place of the step; None for one that `make` drops."""
        stream = self.streams.streams[name]
        found = []
        for row in self.pairing.rows(stream.split, self.index):
            example: Example | None = self.splits[stream.split][row]
            if stream.make is not None and example is not None:
                example = stream.make(example)
            if example is not None and self.model.stochastic:
                example = with_draw(example, derive(self.pairing.seed, self.pairing.stage, "draw", self.index))
            found.append(example)
        return found

    def _place(self, drawn: Mapping[str, Sequence[Example | None]], place: int) -> Place:
        """The rows that a forward has of one place."""
        there = [examples[place] for name, examples in drawn.items() if name in self.streams.wants]
        lengths = [self.model.length(example) for example in there if example is not None]
        return Place(len(lengths), max(lengths, default=0))

    def _rows(self, name: str, drawn: Sequence[Example | None], places: Sequence[int]) -> Rows:
        of_split = self.pairing.rows(self.streams.streams[name].split, self.index)
        found = [(place, example) for place in places if (example := drawn[place]) is not None]
        kept = [place for place, _ in found]
        examples = [example for _, example in found]
        return Rows(bool(found) and name in self.streams.wants, examples, kept, [of_split[place] for place in kept])

    def _batch(self, number: int, names: tuple[str, ...]) -> Batch:
        """The rows of these streams in a micro-batch, collated once however often an update evaluates them."""
        if (number, names) not in self._batches:
            rows = [example for name in names for example in self.parts[number][name].examples]
            self._batches[number, names] = self.model.collate(rows)
        return self._batches[number, names]

    def _groups(self, live: Iterable[str]) -> list[tuple[str, ...]]:
        """Which streams share a forward: all, or none of a coupled model."""
        names = tuple(live)
        return [(name,) for name in names] if self.model.coupled else [names] if names else []

    def _count(self) -> None:
        """Examples and positions of each stream over all micro-batches and processes."""
        names = sorted(self.streams.streams)
        totals = torch.zeros(len(names), 2, dtype=torch.float64, device=processes.device())
        for number, part in enumerate(self.parts):
            for i, name in enumerate(names):
                totals[i, 0] += len(part[name].examples)
            for group in self._groups(name for name, rows in part.items() if rows.read):
                counts = self._batch(number, group).n_B.split([len(part[name].examples) for name in group])
                for name, n_B in zip(group, counts, strict=True):
                    totals[names.index(name), 1] += int(n_B.sum())
        processes.add([totals])
        self.totals = {name: (int(totals[i, 0]), int(totals[i, 1])) for i, name in enumerate(names)}

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self.parts)):
            yield lambda *names, number=number: self._losses(number, names)

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        """Sums tensors over the processes, in place."""
        processes.add(tensors)

    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums `.grad` over the processes; one whose part of the batch is empty joins in with zeros."""
        processes.add_gradients(parameters)

    @property
    def tokens(self) -> int:
        """Counted positions of all forwarded streams."""
        return sum(self.totals[name][1] for name in self.streams.wants)

    def _losses(self, number: int, names: tuple[str, ...]) -> dict[str, Tensor]:
        terms = {name: term for name, term in self.terms.items() if not names or name in names}
        if not terms:
            return {}
        asked = {stream for term in terms.values() for stream in (*term.needs, *term.reference)}
        part = {name: rows for name, rows in self.parts[number].items() if name in asked}
        seed = derive(self.pairing.seed, self.pairing.stage, "step", self.index, number)
        with torch.random.fork_rng(devices=_cuda()):
            seed_torch(seed)
            with self.autocast():
                outputs = self._forward(number, part)
        first = {name for name in terms if (number, name) not in self._seen}
        notes = self.notes if first == set(terms) else {}
        step = Step(
            outputs,
            self.index,
            self.pairing.epoch(self.index),
            generator(self.pairing.seed, self.pairing.stage, "term", self.index),
            self.shares[number],
            notes,
        )
        losses = {name: term.weight * term.loss(step) for name, term in terms.items()}
        if self._split and not any(rows.read for rows in part.values()):
            losses[next(iter(losses))] += self._idle(part)
        self._note(number, losses, outputs)
        return losses

    def _note(self, number: int, losses: Mapping[str, Tensor], outputs: Mapping[str, Output]) -> None:
        """Figures for the log, each part counted once however often an update evaluates it."""
        for name, loss in losses.items():
            if (number, name) not in self._seen:
                self._seen.add((number, name))
                self.figures["loss"] = self.figures.get("loss", 0.0) + float(loss.detach())
        for name, out in outputs.items():
            if out.nll_B is not None and (number, f":{name}") not in self._seen:
                self._seen.add((number, f":{name}"))
                value = out.mean(out.nll_B.detach() / out.n_B.clamp(min=1))
                self.figures[f"{name}_nll"] = self.figures.get(f"{name}_nll", 0.0) + float(value)

    def _forward(self, number: int, part: Mapping[str, Rows]) -> dict[str, Output]:
        live = [name for name, rows in part.items() if rows.read]
        outputs: dict[str, Output] = {}
        for group in self._groups(live):
            whole = self.model.forward(self._batch(number, group), self._want(group[0], part))
            outputs |= _streams(whole, {name: len(part[name].examples) for name in group})
        for name, rows in part.items():
            if name not in outputs:
                outputs[name] = self._without_rows(name, part) if not rows.examples else _bare()
            out = outputs[name]
            out.examples, out.positions = self.totals[name]
            out.rows, out.indices = tuple(rows.kept), tuple(rows.indices)
            if name in self.records and rows.indices:
                width = out.labels_BT.shape[1] if name in live else self.records[name].width
                keys: list[Key] = [*rows.indices]
                if by_step(self.model):
                    keys = [(self.index, place) for place in rows.kept]
                out.reference = self.records[name].at(keys, width, processes.device())
        return outputs

    def _want(self, name: str, asked: Iterable[str]) -> Want:
        """The values that a forward over the requested streams gives of one: all that is wanted of any, where they
        share it.

        Streams that happen to be empty count, so that every process notes the same figures.
        """
        want = Want(frozenset())
        for other in [name] if self.model.coupled else asked:
            want = want | self.streams.wants.get(other, want)
        return want

    @functools.cached_property
    def _split(self) -> bool:
        return is_sharded(self.model.module)

    def _idle(self, asked: Mapping[str, Rows]) -> Tensor:
        """Zero, by the forward and backward that the others make: a process without rows has a part of the weights."""
        name = next(name for name in asked if name in self.streams.wants)
        with self.autocast():
            out = self.model.forward(self.model.collate([self._any_example(name)]), self._want(name, asked))
        values = [value for value in (out.nll_B, *out.hidden.values()) if value is not None]
        return sum((0 * value.float().sum() for value in values), torch.zeros((), device=processes.device()))

    def _without_rows(self, name: str, asked: Iterable[str]) -> Output:
        """The stream's zero rows, with an NLL only where a forward over the asked streams gives one."""
        out = dataclasses.replace(self.streams.blanks[name])
        if not self._want(name, asked).channels:
            out.nll_B = NOT_ASKED
        return out

    def _blank(self, name: str) -> Output:
        """Zero rows of all that is wanted of a stream and of its origin, in the shapes of one example's forward."""
        out, reference = _bare(), self.streams.references.get(name)
        if name in self.streams.wants:
            out = _no_rows(self._looked_at(name, self._want(name, self.streams.wants)))
        if reference is not None:
            then = _no_rows(self._looked_at(name, reference))
            values = {name: value.detach() for name in ORIGIN if (value := getattr(then, name)) is not None}
            out.reference = Reference(**values, hidden={path: value.detach() for path, value in then.hidden.items()})
        return out

    @torch.no_grad()
    def _looked_at(self, name: str, want: Want) -> Output:
        """One example as the model reads it, in eval mode; draws and modes stay as they were."""
        modes = {part: part.training for part in self.model.module.modules()}
        self.model.module.eval()
        try:
            with torch.random.fork_rng(devices=_cuda()), self.autocast():
                return self.model.forward(self.model.collate([self._any_example(name)]), want)
        finally:
            for part, training in modes.items():
                part.training = training

    def _any_example(self, name: str) -> Example:
        """The first example of the stream, or of another one where `make` drops all of its rows."""
        for stream in (self.streams.streams[name], *self.streams.streams.values()):
            for row in self.splits[stream.split]:
                example = row if stream.make is None else stream.make(row)
                if example is not None:
                    return example
        sizes = {stream.split: len(self.splits[stream.split]) for stream in self.streams.streams.values()}
        shown = ", ".join(f"{count} {split} examples" for split, count in sorted(sizes.items()))
        raise BadInput.of(
            "method",
            "",
            f"has nothing to train on in {shown}",
            "choose another method, or add the fields that it reads",
        )


def record_by_step(model: Model, steps: Iterable[StepLosses], name: str, want: Want) -> Record:
    """The reference model's values of a stream in every step's own batches and draws: one forward more per step."""
    places: dict[Key, int] = {}

    def batches() -> Iterator[tuple[list[int], Batch]]:
        for step in steps:
            for part in step.parts:
                if rows := part[name].examples:
                    first = len(places)
                    places.update({(step.index, place): first + i for i, place in enumerate(part[name].kept)})
                    yield list(range(first, len(places))), model.collate(rows)

    return Record(places, join_outputs(outputs(model, batches(), want), want))


def _bare() -> Output:
    """Zero rows of a stream that is not forwarded: its origin alone is asked for."""
    grid = torch.zeros((0, 1), dtype=torch.long, device=processes.device())
    return Output(NOT_ASKED, grid[:, 0], grid, grid.bool())


def _no_rows(out: Output) -> Output:
    """Zero rows and one position of every tensor; a loss of them is 0, and may be differentiated."""

    def none_of(value: Tensor) -> Tensor:
        empty = value.new_zeros((0,) if value.dim() == 1 else (0, 1, *value.shape[2:]))
        return empty.requires_grad_() if empty.is_floating_point() else empty

    return _map_tensors(out, none_of)


def _map_tensors(out: Output, change: Callable[[Tensor], Tensor]) -> Output:
    """The output with every tensor changed; the counts and places of its step are left behind."""
    found = {f.name: getattr(out, f.name) for f in dataclasses.fields(out)}
    tensors: dict[str, Any] = {name: change(value) for name, value in found.items() if isinstance(value, Tensor)}
    tensors.setdefault("nll_B", NOT_ASKED)
    return Output(
        **tensors,
        hidden={path: change(value) for path, value in out.hidden.items()},
        own={name: change(value[:, None])[:, 0] for name, value in out.own.items()},
    )


def _streams(whole: Output, sizes: Mapping[str, int]) -> dict[str, Output]:
    """Each stream's rows of one forward over all of them."""
    if len(sizes) == 1:
        return dict.fromkeys(sizes, whole)
    ends = list(itertools.accumulate(sizes.values(), initial=0))
    return {name: _slice(whole, ends[i], ends[i + 1]) for i, name in enumerate(sizes)}


def _slice(out: Output, first: int, last: int) -> Output:
    """Rows first..last of an output, at the positions that any of them counts."""
    mask_BT = out.mask_BT[first:last]
    used = mask_BT.any(0)
    start = int(used.int().argmax()) if bool(used.any()) else 0

    def cut(value: Tensor) -> Tensor:
        return value[first:last] if value.dim() == 1 else value[first:last, start:]

    return _map_tensors(out, cut)


def _cuda() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
