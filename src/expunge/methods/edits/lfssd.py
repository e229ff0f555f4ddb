"""Selective synaptic dampening without a loss: neither labels nor an answer's likelihood are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model, want_of
from expunge.data.sampling import sample as draw
from expunge.methods._line_search import Put
from expunge.methods._statistics import parameters, start_progress, widen
from expunge.methods.edits._edit import edit, write_parameters
from expunge.methods.edits.ssd import dampener
from expunge.models.passes import passes

CARD = MethodCard(
    "Loss-free selective synaptic dampening",
    paper="arXiv:2402.19308",
    equation="3 and 4",
    needs={"forget": (), "retain": ()},
    capabilities={"labels"},
    means="Weights to which the outputs on the forget set are more sensitive than those on all data are shrunk.",
    deterministic=True,
    one_shot=True,
    fidelity="variant",
    leaves_out="the fixed ratio alpha: by default a line search finds it, and lowers the dampening with it below 1",
    shown="A class of digits goes, within two points of gold.",
)


def sensitivity(model: Model, rows: Sequence[Example], batch: int, advance: Callable[[int], None]) -> dict[str, Tensor]:
    """Mean over batches of `batch` rows of |gradient of the mean squared norm of the logits|, by parameter."""
    held = {name: p for name, p in parameters(model).items() if p.requires_grad}
    total = {name: widen(torch.zeros_like(p)) for name, p in held.items()}
    for part, out in passes(model, rows, want_of({"logits"}), size=batch, gradients=True, progress=advance):
        norm = out.logits_BTV.square().sum() / len(part)
        found = torch.autograd.grad(norm, list(held.values()), allow_unused=True)
        for name, slope in zip(held, found, strict=True):
            if slope is not None:
                total[name] += widen(slope).abs() * len(part) / len(rows)
    return total


def lfssd(
    *,
    alpha: Annotated[float, Gt(0)] | None = None,
    dampening: Annotated[float, Gt(0)] = 1.0,
    sample: Annotated[int, Ge(1)] = 256,
    batch: Annotated[int, Ge(1)] = 1,
) -> Method:
    """Shrink the weights to which the outputs on the forget set are more sensitive than those on all the data.

    theta min(dampening S_all / S_forget, 1) where S_forget > alpha S_all; S the mean |gradient of the squared norm of
    the logits|, over forget, and over forget and retain together: no label is read. alpha: a ratio (by default found
    by a line search for the forget-loss target with the retain floor held, which does read labels, and in which the
    dampening is never above the ratio). sample: retain examples read at most, drawn by seed. batch: examples whose
    gradients are summed before the absolute value.
    """

    def prepare(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Put:
        forget, retain = list(splits["forget"]), draw(splits["retain"], context.seed, sample)
        parts = {"forget": forget, "retain": retain}
        of = {name: _measure_once(model, part, batch, context, name) for name, part in parts.items()}
        share = len(forget) / (len(forget) + len(splits["retain"]))
        return write_parameters(model, dampener(of, share, dampening, alpha is None))

    return edit(prepare, None if alpha is None else 1 / alpha, start=0.1)


def _measure_once(model: Model, rows: Sequence[Example], batch: int, context: Context, name: str) -> dict[str, Tensor]:
    """The sensitivity over the rows, on the CPU, kept in the run's folder under `name`."""

    def measure() -> dict[str, Tensor]:
        found = sensitivity(model, rows, batch, start_progress(context, name, len(rows)))
        return {key: value.cpu() for key, value in found.items()}

    return context.once(name, measure)
