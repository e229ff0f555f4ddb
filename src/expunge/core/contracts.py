"""The contracts that every model family, method and update meets.

Shape suffixes: B examples, T asked positions (right-aligned), V classes or vocabulary, K kept
entries of a distribution, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from expunge.core.card import Card, Example, Needs, Stream
from expunge.core.channels import FORWARD

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Want:
    """What a forward should return: channels, hidden states by module path, and k for `topk`."""

    channels: frozenset[str] = frozenset({"nll"})
    hidden: tuple[str, ...] = ()
    k: int = 0

    def __or__(self, other: Want) -> Want:
        return Want(
            self.channels | other.channels,
            tuple(dict.fromkeys(self.hidden + other.hidden)),
            max(self.k, other.k),
        )


NLL = Want()
"""The plain want: NLL alone."""


@dataclass
class Batch:
    """Collated examples: `inputs` go to the module; labels, mask and counts are of asked positions.

    labels_BT: the token or class that each asked position should predict; mask_BT: whether the
    position counts; n_B: counted positions an example.
    """

    inputs: dict[str, Tensor]
    labels_BT: Tensor
    mask_BT: Tensor
    n_B: Tensor

    @property
    def size(self) -> int:
        return int(self.n_B.shape[0])


_ABSENT: Any = None
"""What was not asked for is None; a term that asked for it need not check."""


@dataclass
class Origin:
    """What the model before the change said of the same rows; None where it was not asked for.

    index_BTK holds the label first, then the k most likely others; top_BTK their log-probabilities
    and rest_BT the log-probability of all else together (minus infinity where nothing is left).
    """

    nll_B: Tensor = _ABSENT
    logp_BT: Tensor = _ABSENT
    index_BTK: Tensor = _ABSENT
    top_BTK: Tensor = _ABSENT
    rest_BT: Tensor = _ABSENT
    hidden: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Output:
    """What a forward gave at the asked positions: prompt and padding never count.

    nll_B: nats, summed over the answer (classifier: cross-entropy); None where no channel was asked
    for. n_B: positions counted.
    `examples` and `positions` are the counts of the WHOLE accumulated batch, over micro-batches and
    processes, so that `mean` of the parts adds up to the mean of the whole.
    """

    nll_B: Tensor
    n_B: Tensor
    labels_BT: Tensor
    mask_BT: Tensor
    logp_BT: Tensor = _ABSENT
    logits_BTV: Tensor = _ABSENT
    index_BTK: Tensor = _ABSENT
    top_BTK: Tensor = _ABSENT
    rest_BT: Tensor = _ABSENT
    argmax_BT: Tensor = _ABSENT
    mu_BT: Tensor = _ABSENT
    sigma_BT: Tensor = _ABSENT
    hidden: dict[str, Tensor] = field(default_factory=dict)
    origin: Origin = _ABSENT
    examples: int = 0
    positions: int = 0
    rows: tuple[int, ...] = ()
    """Places of these examples within the step (`make` may drop some)."""
    indices: tuple[int, ...] = ()
    """Rows of the stream's split that these are."""

    def mean(self, x: Tensor) -> Tensor:
        """Mean of x over the examples [B] or the counted positions [B, T] of the whole batch."""
        if x.dim() == 1:
            return x.sum() / max(1, self.examples or x.shape[0])
        total = self.positions or int(self.mask_BT.sum())
        return (x * self.mask_BT).sum() / max(1, total)

    @property
    def nll(self) -> Tensor:
        """NLL a position, averaged over the counted positions of the whole batch (a scalar)."""
        return self.nll_B.sum() / max(1, self.positions or int(self.n_B.sum()))


class Step(dict[str, Output]):
    """One micro-batch of one optimiser step: stream -> Output."""

    def __init__(
        self,
        outputs: Mapping[str, Output],
        index: int,
        epoch: int,
        generator: torch.Generator,
        share: float = 1.0,
        notes: dict[str, float] | None = None,
    ) -> None:
        super().__init__(outputs)
        self.index = index
        self.epoch = epoch
        self.generator = generator
        """The same for all micro-batches of a step: draw for the step's places, and take `rows` of it."""
        self.share = share
        """Sums to 1 over the micro-batches: the factor for losses on weights."""
        self.notes = {} if notes is None else notes

    def note(self, name: str, value: Tensor | float) -> None:
        """Records a figure, summed over the batch's parts; `after_step` gets the sums."""
        self.notes[name] = self.notes.get(name, 0.0) + float(value)


@runtime_checkable
class Subject(Protocol):
    """A model as unlearning sees it, whatever its family (see the design, section 4)."""

    module: nn.Module
    family: str
    capabilities: frozenset[str]
    coupled: bool
    stochastic: bool
    blocks: list[str]

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch: ...
    def forward(self, batch: Batch, want: Want = NLL) -> Output: ...
    def generate(self, prompts: Sequence[Example], **settings: Any) -> list[str]: ...
    def save(self, folder: Path) -> None: ...
    def length(self, example: Example) -> int: ...
    def down(self, i: int) -> str: ...
    def fingerprint(self) -> dict[str, Any]: ...


Loss = Callable[[Step], "Tensor"]


def want_of(channels: Iterable[str]) -> Want:
    """A Want from channel names; `topk:64` sets k, `hidden:PATH` asks for a module's output."""
    plain, hidden, k = set(), [], 0
    for name in sorted(channels):
        kind, _, value = name.partition(":")
        if kind == "hidden":
            hidden.append(value)
            continue
        if kind == "topk":
            k = max(k, int(value or 64))
        if kind not in FORWARD:
            raise ValueError(f"unknown channel {name!r}; known: {', '.join(FORWARD)}, hidden:PATH")
        plain.add(kind)
    return Want(frozenset(plain), tuple(hidden), k)


@dataclass
class Term:
    """One loss of an objective, bound to its card.

    loss: the plug-in's callable. It may be an object with `declare(subject)` (sets needs, origin
    and streams that depend on the model), `prepare(run)`, `after_step(index, notes)`, `noted()` (what the
    evidence should say of it), `state_dict` and `load_state_dict`; what it lacks is not called.
    """

    name: str
    loss: Loss
    card: Card
    weight: float = 1.0

    def declare(self, subject: Subject) -> None:
        if hasattr(self.loss, "declare"):
            self.loss.declare(subject)

    def _own(self, name: str) -> Any:
        return getattr(self.loss, name, None) or getattr(self.card, name)

    @property
    def needs(self) -> Needs:
        return self._own("needs")

    @property
    def origin(self) -> Needs:
        return self._own("origin")

    @property
    def streams(self) -> Mapping[str, Stream]:
        return self._own("streams")


class Run(Protocol):
    """What a term may use to prepare: the model before the change and the rows it will see."""

    subject: Subject
    context: Context

    def examples(self, stream: str) -> list[Example]: ...
    def rows(self, stream: str) -> list[int]: ...
    def record(self, examples: Sequence[Example], want: Want) -> Origin: ...


class Micro(Protocol):
    """One micro-batch: names of terms (none: all) -> their weighted losses, by a new forward."""

    def __call__(self, *names: str) -> dict[str, Tensor]: ...


class Losses(Protocol):
    """The losses of one optimiser step; iterating gives its micro-batches."""

    subject: Subject

    def __iter__(self) -> Iterator[Micro]: ...
    def reduce(self, tensors: Sequence[Tensor]) -> None: ...


Update = Callable[[Losses, "Sequence[nn.Parameter]"], None]
"""How a step gets its gradient. It may be an object with `terms` of its own (name -> Term), which
are evaluated only where it names them, and with `optimiser(parameters, rate)`."""


@dataclass
class Moving:
    """The parameters that may move, by name, and which of their entries (None: all)."""

    parameters: dict[str, nn.Parameter]
    masks: dict[str, Tensor] | None = None


Weights = Callable[[Subject, "Mapping[str, Any]", "Context"], Moving]


class Guard(Protocol):
    """Answers for a model whose weights stay: what `Guarded` asks in the model's place.

    A guard's file exports `restore(settings, tensors) -> Guard`, the inverse of `state`.
    """

    name: str

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output: ...
    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]: ...
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]: ...


@runtime_checkable
class Method(Protocol):
    """Changes a subject, perhaps in place: an objective run, an edit, a wrapper, an exact scheme.

    It may be an object with `fits(subject, splits, manifest)`, which the plan calls: it raises BadInput
    or returns notes, and may set `steps`, the optimiser steps that the plan should name.
    """

    def __call__(self, subject: Subject, splits: Mapping[str, Any], context: Context) -> Subject: ...


class Reporter(Protocol):
    """Where progress goes: a terminal, or nowhere."""

    def start(self, name: str, total: int) -> None: ...
    def advance(self, name: str, done: int, note: str = "") -> None: ...
    def finish(self, name: str) -> None: ...
    def say(self, text: str) -> None: ...


class Silent:
    """A reporter for pipes and libraries."""

    def start(self, name: str, total: int) -> None: ...
    def advance(self, name: str, done: int, note: str = "") -> None: ...
    def finish(self, name: str) -> None: ...
    def say(self, text: str) -> None: ...


if TYPE_CHECKING:
    from expunge.core.context import Context

__all__ = [
    "Batch",
    "Card",
    "Example",
    "Guard",
    "Loss",
    "Losses",
    "Method",
    "Micro",
    "Moving",
    "Needs",
    "Origin",
    "Output",
    "Reporter",
    "Run",
    "Silent",
    "Step",
    "Stream",
    "Subject",
    "Term",
    "Update",
    "Want",
    "Weights",
    "want_of",
]
