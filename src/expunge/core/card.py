"""A plug-in's card: what it is, where it comes from, what it needs. Plan reads cards, not code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Example = dict[str, Any]
Needs = Mapping[str, Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A further stream of examples in a step: a split, seen through `make`.

    `make` maps an example to the example that is forwarded, or to None (the row is dropped).
    """

    split: str
    make: Callable[[Example], Example | None] | None = None


@dataclass(frozen=True)
class Card:
    """A plug-in's description of itself.

    paper: its identifier, or "baseline"; equation: the number in that paper. needs: see the kind's own card.
    fields: split -> keys that its examples must carry. capabilities: what the model must have.
    """

    title: str
    paper: str = "baseline"
    equation: str = ""
    needs: Needs = field(default_factory=dict)
    fields: Needs = field(default_factory=dict)
    capabilities: Iterable[str] = ()
    means: str = ""
    """What a reader may conclude from the figure or expect of the method, and what not."""

    @property
    def sources(self) -> set[str]:
        """The splits that it draws on."""
        return set(self.needs)


@dataclass(frozen=True)
class MethodCard(Card):
    """The card of what changes a model.

    needs: stream -> channels of the model in training (for methods other than loss terms: split -> nothing).
    reference: stream -> channels of the reference model, the model before the change.
    wraps: what a wrapper accepts as its inner method. yields: what the method leaves behind.
    optional: splits that it uses where the request has them.
    """

    reference: Needs = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)
    optional: Iterable[str] = ()
    wraps: Iterable[str] = ()
    yields: str = "weights"
    fidelity: Literal["", "faithful", "simplified", "variant"] = ""
    """How near it is to its paper: its method; the same without some of its steps; or with a step of another kind."""
    leaves_out: str = ""
    """The paper's steps that are left out or replaced, as a noun phrase; empty where it is faithful."""
    shown: str = ""
    """What a claim test has shown of it on small models, in one or two sentences; empty where nothing was shown."""
    ignores: Iterable[str] = ()
    """Of an update: the weights of loss terms (`alpha`, `forget_weight`) that change nothing under it."""
    keeps: str = ""
    """What of the forget set the method saves in the model's folder; a redacted run refuses it."""
    deterministic: bool = False
    """The request's seed changes nothing: by default the method draws only the sample of a split that is too large to
    be read whole, and an exact scheme repeats the seeds of the model's own training."""
    reproducible: bool = True
    """Two runs of one request end bit for bit alike; False where the method draws what must stay secret."""
    distributed: bool = False
    """Two processes were shown to make the model of one with it; otherwise a run of several processes refuses it."""
    one_shot: bool = False
    """It changes weights without a training step (a closed form, pruning), so a budget of no steps does not stop it."""

    @property
    def sources(self) -> set[str]:
        """The splits that its streams draw on."""
        return {self.streams[name].split if name in self.streams else name for name in (*self.needs, *self.reference)}


@dataclass(frozen=True)
class DetectorCard(Card):
    """The card of a detector of poisoned rows; fidelity and leaves_out as in a method's."""

    capabilities: Iterable[str] = ("labels",)
    fidelity: Literal["faithful", "simplified", "variant"] = "faithful"
    leaves_out: str = ""


@dataclass(frozen=True)
class ProtectionCard(DetectorCard):
    """The card of a change of pictures that protects them; fidelity and leaves_out as in a method's."""


@dataclass(frozen=True)
class MetricCard(Card):
    """The card of a figure that is computed from readouts.

    needs: split -> channels; the split "split" stands for each of `splits` in turn, "gold.forget" for gold's readout
        and "before.retain" for that of the reference model.
    """

    side: str = ""
    better: str = ""
    unit: str = ""
    splits: Iterable[str] = ("forget", "retain", "holdout", "test")
    aggregate: str = "mean"


@dataclass(frozen=True)
class AttackCard(MetricCard):
    """The card of an attack: arithmetic on readouts, or work on a model whose `needs` name the splits that it takes."""

    adversary: str = ""
    """What the attacker can do and has, the weakest that suffices: query access (texts), logits, hidden states,
    gradients, weights, fine-tuning; then the data that it needs."""
    level: str = ""
    """The audit that runs it first, "standard" or "deep", where it works on a model; "": arithmetic on readouts."""
    more: Iterable[str] = ()
    """Suffixes of the further scores of an attack on a model."""
    passes: float = 0.0
    """For the plan: about how many forward passes over the forget set it takes (a training step counts three)."""
    whole: bool = False
    """It takes every row that evidence reads, where others take a sample of each split: a few forward passes."""
    no_control: str = ""
    """Why it is not run on the model before the change as its own control; "" where it is."""


@dataclass(frozen=True)
class OodCard(Card):
    """The card of an out-of-distribution score.

    reads: the parts of the scored `Rows` that it uses: "logits", "features", "head", "gradients", "inputs", "views".
    fits: those of the in-distribution rows, "labels" among them.
    """

    capabilities: Iterable[str] = ("labels",)
    reads: Iterable[str] = ("logits",)
    fits: Iterable[str] = ()
