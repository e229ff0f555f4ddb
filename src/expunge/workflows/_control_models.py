"""Models of known truth: made from a model and its retrainings, in memory alone.

Suffixes: B examples of a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core import cache
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Batch, Model, Output, Want
from expunge.core.errors import BadInput
from expunge.core.files import digest
from expunge.core.random import generator, permutation
from expunge.data.examples import identity
from expunge.data.splits import Splits
from expunge.evaluation.attack import RATE
from expunge.evaluation.scores import NotMeasured
from expunge.methods.compose import compose
from expunge.models.guarded import Guarded
from expunge.models.passes import passes
from expunge.pipeline.compatibility import fits_method

Open = Callable[[], Model]
"""Opens a model anew, so that it may be changed at will."""
COPY_NOISE = 1e-3
"""Deviation of the noise on a copied weight, as a share of the deviation of its tensor."""
ASCENT_STEPS, ASCENT_BATCH, ASCENT_CHECK = 160, 32, 8
"""Optimiser steps of over-forgetting at most, examples per step, and steps between two looks at the loss."""
ASCENT_SHARE = 0.1
"""Learning rate of over-forgetting, as a share of the model's own; it doubles at each look."""
FAR = 3.0
"""Forget NLL of an over-forgotten model, as a multiple of gold's."""
HIDING_BUDGET = Budget(epochs=2, stop="none")
"""Length of a training that hides: enough to change the answers."""


def random_model(open_base: Open, seed: int) -> Model:
    """The architecture with fresh weights: normal draws with each tensor's own mean and deviation."""
    draws = generator(seed, "selftest", "random")
    return _reweight(open_base(), lambda x, centre, spread: centre + spread * _normal_like(x, draws))


def noisy_model(open_base: Open, seed: int) -> Model:
    """The model with noise on its weights that changes no figure worth mentioning."""
    draws = generator(seed, "selftest", "noise")
    return _reweight(open_base(), lambda x, centre, spread: x + COPY_NOISE * spread * _normal_like(x, draws))


def constant_model(open_base: Open, value: float) -> Model:
    """The architecture with one value in all weights: 0 gives the same answer to everything, NaN none."""
    return _reweight(open_base(), lambda x, centre, spread: torch.full_like(x, value))


def _reweight(model: Model, value: Callable[[Tensor, float, float], Tensor]) -> Model:
    """The model with new weights: value(tensor, its mean, its deviation) of each floating-point parameter."""
    with torch.no_grad():
        for tensor in model.module.parameters():
            if tensor.is_floating_point():
                values = tensor.double()
                tensor.copy_(value(tensor, float(values.mean()), float(values.std(correction=0))))
    return model


def _normal_like(tensor: Tensor, draws: torch.Generator) -> Tensor:
    return torch.randn(tensor.shape, generator=draws).to(tensor)


def overforgotten_model(
    open_base: Open, open_gold: Open, forget: Sequence[Example], retain: Sequence[Example], rate: float | None
) -> Model:
    """The model after gradient ascent on the forget set, until its NLL there is FAR times gold's.

    rate: the learning rate of the model's training, where it is known. Retain examples, where there are any, are
    trained with descent beside it. Raises NotMeasured where ASCENT_STEPS do not suffice.
    """
    goal = FAR * _mean_nll(open_gold(), forget)
    model = open_base()
    optimiser = torch.optim.AdamW(model.module.parameters(), lr=ASCENT_SHARE * rate if rate else RATE, weight_decay=0.0)
    for step in range(ASCENT_STEPS):
        with torch.enable_grad():
            loss = -model.forward(model.collate(_batch(forget, step))).nll
            if retain:
                loss = loss + model.forward(model.collate(_batch(retain, step))).nll
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if (step + 1) % ASCENT_CHECK == 0:
            if _mean_nll(model, forget) >= goal:
                return model
            for group in optimiser.param_groups:
                group["lr"] *= 2
    raise NotMeasured(f"{ASCENT_STEPS} steps of gradient ascent did not bring the forget NLL to {goal:.3g} nats")


def _batch(rows: Sequence[Example], step: int) -> list[Example]:
    order = permutation(len(rows), 0, "selftest", "batch", step)
    return [rows[i] for i in order[:ASCENT_BATCH]]


def _mean_nll(model: Model, rows: Sequence[Example]) -> float:
    """The mean over examples of nats per position."""
    means = [out.nll_B / out.n_B.clamp(min=1) for _, out in passes(model, rows)]
    return float(torch.cat(means).double().mean())


def hiding_model(open_base: Open, method: str, splits: Splits, manifest: Mapping[str, Any] | None) -> Model:
    """The model after a method that hides and does not remove. Raises NotMeasured where the method cannot be had."""
    model, composed = open_base(), compose(method)
    given = {name: splits[name] for name in ("forget", "retain") if splits.get(name)}
    with cache.scratch() as folder:
        context = Context(HIDING_BUDGET.over(composed.budget, DEFAULTS), folder, 0, "selftest", manifest=manifest)
        try:
            fits_method(composed, model, given)
            return composed.method(model, given, context)
        except BadInput as error:
            raise NotMeasured(str(error)) from None


class Mask:
    """A guard that answers some examples as another model does, word for word; the weights stay as they are.

    No detector is trained: the examples are recognised by their inputs. A perfect disguise, so that an audit which
    asks questions alone cannot see through it.
    """

    name = "mask"

    def __init__(self, other: Model, rows: Sequence[Example]) -> None:
        self.other = other
        self.names = frozenset(identity(row) for row in rows)
        self.inputs = frozenset(_keys(other.collate([row]))[0] for row in rows)

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        """The bare model's outputs, with those of the other model for the recognised examples."""
        masked_B = torch.tensor([key in self.inputs for key in _keys(batch)])
        if not masked_B.any():
            return bare.forward(batch, want)
        return _merge(masked_B, self.other.forward(batch, want), bare.forward(batch, want))

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        """The bare model's answers, with those of the other model for the recognised examples."""
        masked = [identity(row) in self.names for row in prompts]
        texts = {}
        for hides, model in ((True, self.other), (False, bare)):
            rows = [row for row, one in zip(prompts, masked, strict=True) if one is hides]
            texts[hides] = iter(model.generate(rows, **settings) if rows else [])
        return [next(texts[one]) for one in masked]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The identity of what it does: it is never saved."""
        return {"other": digest(self.other.fingerprint()), "rows": digest(sorted(self.names))}, {}


def masked_model(open_bare: Open, open_other: Open, rows: Sequence[Example]) -> Model:
    """The bare model behind a mask that answers these examples as the other model does."""
    return Guarded(open_bare(), Mask(open_other(), rows))


class Scribble:
    """A guard of a model that draws: its losses stay, and whatever it is asked for, it draws noise."""

    name = "scribble"

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        """The bare model's outputs, of noise in the place of its pictures."""
        bare.sample = lambda start_BCHW, labels_B: (start_BCHW / 4 + 0.5).clamp(0, 1)
        try:
            outputs: Output = bare.forward(batch, want)
        finally:
            del bare.sample
        return outputs

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        """As the bare model: it writes nothing."""
        return list(bare.generate(prompts, **settings))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Nothing: it is never saved."""
        return {}, {}


def scribbling_model(open_bare: Open) -> Model:
    """The bare model behind a guard that draws noise."""
    return Guarded(open_bare(), Scribble())


def _keys(batch: Batch) -> list[bytes]:
    """The inputs of each example of a batch, without padding."""
    seen = batch.inputs.get("attention_mask")
    found = []
    for b in range(batch.size):
        parts = []
        for name, value in sorted(batch.inputs.items()):
            if seen is None:
                parts.append(value[b])
            elif name == "input_ids":
                parts.append(value[b][seen[b].bool()])
        found.append(b"".join(part.cpu().contiguous().numpy().tobytes() for part in parts))
    return found


def _merge(first_B: Tensor, one: Output, other: Output) -> Output:
    """The outputs of two models for one batch: the first's where `first_B` is set."""

    def merge(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            chosen_B = first_B.to(a.device).reshape(-1, *[1] * (a.dim() - 1))
            return torch.where(chosen_B, a, b)
        if isinstance(a, dict) and isinstance(b, dict):
            return {name: merge(a[name], b[name]) for name in a if name in b}
        return b

    return dataclasses.replace(
        other,
        **{
            part.name: merge(getattr(one, part.name), getattr(other, part.name))
            for part in dataclasses.fields(Output)
            if part.name != "reference"
        },
    )
