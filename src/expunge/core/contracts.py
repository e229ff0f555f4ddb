"""The contracts that every model family, method and update meets.

Shape suffixes: B examples, T asked positions (right-aligned), V classes or vocabulary, K kept
entries of a distribution, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from expunge.core.card import AttackCard as AttackCard
from expunge.core.card import Card as Card
from expunge.core.card import Example as Example
from expunge.core.card import MethodCard as MethodCard
from expunge.core.card import MetricCard as MetricCard
from expunge.core.card import Needs as Needs
from expunge.core.card import Stream as Stream
from expunge.core.errors import BadInput
from expunge.core.reporter import Reporter as Reporter
from expunge.core.reporter import Silent as Silent
from expunge.core.want import NLL as NLL
from expunge.core.want import Want as Want
from expunge.core.want import want_of as want_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from expunge.core.context import Context


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

    @classmethod
    def of_examples(cls, inputs: dict[str, Tensor], labels_B: Tensor) -> Batch:
        """A batch whose examples have one position each. labels_B: their classes, or zeros where there are none."""
        labels_B1 = labels_B.reshape(-1, 1)
        mask_B1 = labels_B1 == labels_B1
        return cls(inputs, labels_B1, mask_B1, mask_B1.sum(-1))


NOT_ASKED: Any = None
"""What was not asked for is None; a term that asked for it need not check."""


@dataclass
class Reference:
    """The reference model's values for the same rows; None where they were not requested.

    index_BTK holds the label first, then the k most likely others; top_BTK their log-probabilities
    and rest_BT the log-probability of all else together (minus infinity where nothing is left).
    """

    nll_B: Tensor = NOT_ASKED
    logp_BT: Tensor = NOT_ASKED
    index_BTK: Tensor = NOT_ASKED
    top_BTK: Tensor = NOT_ASKED
    rest_BT: Tensor = NOT_ASKED
    hidden: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Output:
    """A forward's values at the requested positions: prompt and padding never count.

    nll_B: nats, summed over the answer (classifier: cross-entropy); None where no channel was asked
    for. n_B: positions counted.
    `examples` and `positions` are the counts of the WHOLE accumulated batch, over micro-batches and
    processes, so that `mean` of the parts adds up to the mean of the whole.
    """

    nll_B: Tensor
    n_B: Tensor
    labels_BT: Tensor
    mask_BT: Tensor
    logp_BT: Tensor = NOT_ASKED
    logits_BTV: Tensor = NOT_ASKED
    index_BTK: Tensor = NOT_ASKED
    top_BTK: Tensor = NOT_ASKED
    rest_BT: Tensor = NOT_ASKED
    argmax_BT: Tensor = NOT_ASKED
    mu_BT: Tensor = NOT_ASKED
    sigma_BT: Tensor = NOT_ASKED
    hidden: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    """The family's own channels by name, each [B, ...]."""
    reference: Reference = NOT_ASKED
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
class Model(Protocol):
    """A model as unlearning sees it, whatever its family; `models/base.py` has defaults for most of it.

    coupled: the examples of a training batch influence each other (batch statistics, in-batch contrast): each stream
    gets its own forward, and batches are never split. together: in eval mode they do so too (in-batch contrast), and
    this many are read together, as they come; 0 where an example's output is its own. stochastic: the loss draws
    (diffusion's t and noise), when the batch is collated and from `data.examples.noise_of(example)` alone, which
    follows the example's `draw`, so that two readings agree bit for bit; training gives each step its own draw.
    trusted: it was opened with leave to run code of its own.
    """

    module: nn.Module
    family: str
    capabilities: frozenset[str]
    coupled: bool
    together: int
    stochastic: bool
    trusted: bool
    blocks: list[str]

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch: ...
    def forward(self, batch: Batch, want: Want = NLL) -> Output: ...
    def generate(self, prompts: Sequence[Example], **settings: Any) -> list[str]: ...
    def save(self, folder: Path) -> None: ...
    def accepts(self, split: str, rows: Sequence[Example]) -> None: ...
    def length(self, example: Example) -> int: ...
    def down(self, i: int) -> str: ...
    def fingerprint(self) -> dict[str, Any]: ...


Loss = Callable[[Step], "Tensor"]
"""What a term's factory returns: a plain function of the step, or a LossTerm."""


class LossTerm:
    """A loss and its hooks, all of them empty here: a term overrides what it needs.

    needs, origin, streams: what the card says of the same name unless they are given, or set by `declare`.
    """

    needs: Needs | None = None
    reference: Needs | None = None
    streams: Mapping[str, Stream] | None = None
    reads: Iterable[str] = ()
    """Splits that `prepare` reads besides the streams': a request without them is refused."""
    trained: int = 0
    """Tokens that `prepare` trained a model of the term's own on: they count in the run's cost."""
    ahead: int = 0
    """The same before it did, for the plan, where `fits` can tell."""
    _loss: Loss | None = None

    def __init__(
        self,
        loss: Loss | None = None,
        *,
        needs: Needs | None = None,
        reference: Needs | None = None,
        streams: Mapping[str, Stream] | None = None,
    ) -> None:
        self._loss = loss
        self.needs, self.reference, self.streams = needs, reference, streams

    def __call__(self, step: Step) -> Tensor:
        """The loss of one micro-batch: a scalar, 0 where its streams are empty."""
        if self._loss is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a loss nor a __call__ of its own")
        return self._loss(step)

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        """Raises BadInput where the model, or how it was trained, does not suffice; before anything runs."""

    def fits_rows(self, splits: Mapping[str, Sequence[Example]]) -> None:
        """Raises BadInput where the rows do not suffice; before anything runs."""

    def declare(self, model: Model) -> None:
        """Sets the needs, origin and streams that depend on the model. Raises BadInput."""

    def prepare(self, run: Run) -> None:
        """Called once before the first step, with the origin's weights in place, also on resume."""

    def after_step(self, index: int, notes: Mapping[str, float]) -> None:
        """Called after each optimiser step with the sums of what the step noted."""

    def notes(self) -> dict[str, Any]:
        """Remarks on the term for the evidence."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint must hold: tensors and JSON values by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state_dict` gave."""


HOOKS = tuple(name for name in vars(LossTerm) if not name.startswith("_"))
"""Names that mean nothing on a plain function."""


@dataclass
class Term:
    """One loss of an objective, bound to its card."""

    name: str
    loss: LossTerm
    card: MethodCard
    weight: float = 1.0

    @classmethod
    def of(cls, name: str, made: Loss, card: MethodCard, weight: float = 1.0) -> Term:
        """A term of what a factory returned; a plain function is wrapped. Raises BadInput."""
        if isinstance(made, LossTerm):
            return cls(name, made, card, weight)
        if lost := [hook for hook in HOOKS if hook in dir(made)]:
            raise BadInput.of(
                name, lost[0], "is set on a loss that is not a LossTerm", "return a LossTerm from the factory"
            )
        return cls(name, LossTerm(made), card, weight)

    @property
    def needs(self) -> Needs:
        return self.loss.needs if self.loss.needs is not None else self.card.needs

    @property
    def reference(self) -> Needs:
        return self.loss.reference if self.loss.reference is not None else self.card.reference

    @property
    def streams(self) -> Mapping[str, Stream]:
        return self.loss.streams if self.loss.streams is not None else self.card.streams


class Run(Protocol):
    """The run as a term may use it to prepare: the model before the change and the rows it will see."""

    model: Model
    context: Context
    splits: Mapping[str, Sequence[Example]]
    total: int
    """Optimiser steps, where nothing stops the run earlier."""

    def examples(self, stream: str) -> list[Example]: ...
    def rows(self, stream: str) -> list[int]: ...
    def record(self, examples: Sequence[Example], want: Want) -> Reference: ...


class Micro(Protocol):
    """One micro-batch: names of terms (none: all) -> their weighted losses, by a new forward."""

    def __call__(self, *names: str) -> dict[str, Tensor]: ...


class Losses(Protocol):
    """The losses of one optimiser step; iterating gives its micro-batches."""

    model: Model

    @property
    def tokens(self) -> int:
        """Counted positions of all forwarded streams, over micro-batches and processes."""

    def __iter__(self) -> Iterator[Micro]: ...
    def reduce(self, tensors: Sequence[Tensor]) -> None: ...
    def reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None: ...


Gradient = Callable[[Losses, "Sequence[nn.Parameter]"], None]
"""Leaves a step's gradient on the parameters."""


class Update:
    """How a step gets its gradient: a plain function, or a subclass that overrides what it needs.

    terms: further terms (name -> Term), which are evaluated only where the update names them.
    """

    terms: Mapping[str, Term] = {}
    _gradient: Gradient | None = None

    def __init__(self, gradient: Gradient | None = None, terms: Mapping[str, Term] | None = None) -> None:
        self._gradient = gradient
        self.terms = terms or {}

    def __call__(self, losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        if self._gradient is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a gradient nor a __call__ of its own")
        self._gradient(losses, parameters)

    def optimiser(self, parameters: Sequence[nn.Parameter], rate: float) -> torch.optim.Optimizer | None:
        """The optimiser that goes with it; None: the loop's own."""
        return None


@dataclass
class Trainable:
    """The parameters that may move, by name, and which of their entries (None: all)."""

    parameters: dict[str, nn.Parameter]
    masks: dict[str, Tensor] | None = None


Weights = Callable[[Model, "Mapping[str, Any]", "Context"], Trainable]


class Guard(Protocol):
    """Answers for a model whose weights stay: what `Guarded` asks in the model's place.

    A guard's file exports `restore(settings, tensors) -> Guard`, the inverse of `state`.
    """

    name: str

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output: ...
    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]: ...
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]: ...


Change = Callable[[Model, Mapping[str, Any], "Context"], Model]
"""Changes a model, perhaps in place, and returns it."""


class Method:
    """An objective run, an edit, a wrapper or an exact scheme: a plain function, or a subclass.

    steps: the optimiser steps that the plan should name; None: those of the budget. tokens: what they train on, where
    the method knows it. ahead: tokens that it trains on besides these, where `fits` can tell. optional: splits that
    these options read where they are there, besides those that the card names.
    """

    steps: int | None = None
    tokens: int | None = None
    ahead: int = 0
    optional: tuple[str, ...] = ()
    _change: Change | None = None

    def __init__(self, change: Change | None = None) -> None:
        self._change = change

    def __call__(self, model: Model, splits: Mapping[str, Any], context: Context) -> Model:
        if self._change is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a change nor a __call__ of its own")
        return self._change(model, splits, context)

    def fits(self, model: Any, splits: Mapping[str, Any], manifest: Mapping[str, Any] | None) -> list[str]:
        """Notes for the plan; may set `steps`. Raises BadInput where the method cannot serve the request."""
        return []
