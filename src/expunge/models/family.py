"""The seam of a new kind of model: one `Family` says all that the rest of the tool asks of it.

A family is a file that exports FAMILY, in models/families/ or in another package (entry-point group `expunge.models`,
`name = package.module`). Nothing else asks what kind of model it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from expunge.core import channels, registry
from expunge.core.card import Example
from expunge.core.channels import Channel
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.data.examples import form
from expunge.models.memory import activation_bytes

Source = str | Mapping[str, Any]
"""A folder, a hub name, or a mapping: a network to build, or what a training starts from."""
Values = TypeVar("Values", Tensor, np.ndarray)


class Check(Protocol):
    """Raises BadInput for what can be known to be wrong with a source without loading it."""

    def __call__(self, source: Source, *, trust_code: bool, weights: bool, field: str) -> None: ...


class Open(Protocol):
    """The model of a source, on the CPU, in eval mode; its structure alone, on the meta device, where `meta`."""

    def __call__(self, source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None) -> Model: ...


class Fresh(Protocol):
    """The model that a training from the mapping `spec` starts with; its weights follow from the seed.

    examples: what it will learn, where something must be learned of them first (a tokenizer). like: a model whose
    preprocessing is taken over instead. meta: shapes alone.
    """

    def __call__(
        self,
        spec: Mapping[str, Any],
        examples: Sequence[Example],
        *,
        seed: int,
        trust_code: bool,
        like: Model | None,
        meta: bool,
    ) -> Model: ...


CAPABILITIES = {
    "labels": "class labels",
    "generate": "text generation",
    "tokens": "tokens",
    "mlp": "MLP layers",
    "embedding": "embeddings",
    "federation": "what a federation's server keeps of its rounds (`trainer: federation` in train.yaml)",
    "trees": "trees",
    "tasks": "weights that a hypernetwork writes for each task",
    "pairs": "pairs of pictures and texts",
    "pictures": "generated pictures",
    "conditions": "classes or concepts that it can be asked to draw",
    "class_table": "a table with a vector for each class",
    "prompts": "prompts by which it draws",
    "consistency": "drawing in one step by consistency (`diffusion: consistency` in train.yaml)",
    "gan": "a generator and a discriminator",
}
"""What capabilities are called in messages."""


def likelihood(nats: Values) -> Values:
    """The probability that a loss in nats per position stands for."""
    return torch.exp(-nats) if isinstance(nats, Tensor) else np.exp(-nats)


def check_nothing(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """The check of a family that leaves all faults to its `open`."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of model.

    title: what a model of the family is called ("classifier"). claims: whether it opens a source or starts a training
    from it; told without reading weights, and without raising. example_forms: the keys that make an example, one tuple
    per form. channels: what a forward or a reading gives, names of the common table and channels of its own.
    capabilities: what a model of the family has. headline: "forgetting" and "utility" -> names of the scores that
    stand for each, the best first. kept: the statistic that the retain floor holds, "accuracy" (of the class),
    "probability" or "knowledge" (the mean of `knowledge`). knowledge: the loss per position of examples, as a tensor or
    array -> how far each is known, in 0-1. show: an example -> a picture of it for the report, as SVG text or PNG
    bytes; None for texts. memory: bytes of activations and of logits at the peak of a step. trainer: the trainer of
    `expunge train` that serves it, where train.yaml names none. weights: whether steps and edits can change it.
    known: the channel whose values say how far each example is known, in 0-1, where the loss does not tell; NaN where
    nobody can. study: what a model of the family learns of the splits before it is read, (model, splits).
    """

    name: str
    title: str
    claims: Callable[[Source], bool]
    open: Open
    fresh: Fresh
    example_forms: tuple[tuple[str, ...], ...]
    channels: Iterable[str | Channel] = ("nll",)
    capabilities: frozenset[str] = frozenset({"nll"})
    headline: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"forgetting": ("forget_nll",), "utility": ("retain_nll",)}
    )
    check: Check = check_nothing
    kept: str = "probability"
    knowledge: Callable[[Any], Any] = likelihood
    show: Callable[[Example], str | bytes] | None = None
    memory: Callable[..., tuple[float, float]] = activation_bytes
    trainer: str = "plain"
    weights: bool = True
    known: str = ""
    study: Callable[[Any, Mapping[str, Sequence[Example]]], None] | None = None

    def __post_init__(self) -> None:
        for channel in self.channels:
            if isinstance(channel, Channel):
                channels.add(channel)

    @property
    def gives(self) -> frozenset[str]:
        """The names of its channels."""
        return frozenset(one.name if isinstance(one, Channel) else one for one in self.channels)

    @property
    def labelled(self) -> bool:
        """Whether each of its examples has a class."""
        return all("label" in keys for keys in self.example_forms)

    def check_forms(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput for the first example that is of no form of the family."""
        for i, row in enumerate(rows):
            if (keys := form(row)) not in self.example_forms:
                forms = [" and ".join(form) for form in self.example_forms]
                raise BadInput.of(
                    split,
                    f"row {i + 1}",
                    f"holds {' and '.join(keys or row)}, and the model is a {self.title}",
                    f"give examples with {', or '.join(forms)}",
                )


def family(name: str) -> Family:
    """The family of that name. Raises BadInput."""
    return registry.module_of("models", name, "family").FAMILY


def families() -> list[Family]:
    """All families, those of other packages first: they know best what is theirs."""
    known = registry.names("models")
    return [family(name) for name in sorted(known, key=lambda name: known[name].startswith("expunge."))]


def family_of(source: Source) -> Family | None:
    """The family that opens this source; None where none does."""
    return next((one for one in families() if one.claims(source)), None)
