"""Concept-vector ablation: the down-projection columns that hold a concept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.data.sampling import sample
from expunge.methods._keys import weight_DM
from expunge.methods._line_search import Put
from expunge.methods._statistics import ROWS, start_progress
from expunge.methods.edits._edit import edit
from expunge.models.passes import passes
from expunge.models.weights import tap

CARD = MethodCard(
    "Concept-vector ablation",
    paper="arXiv:2406.11614",
    equation="section 5, noise on the concept vectors",
    needs={"forget": (), "retain": ()},
    capabilities=("tokens", "mlp"),
    means="Vectors are found by attribution, where the paper has annotators read them off the vocabulary.",
    deterministic=True,
    one_shot=True,
    fidelity="variant",
    leaves_out="vectors read off the vocabulary by annotators: they are found by attribution",
    shown="Under the floor a tenth of the answers go; that the concept goes is not shown.",
)


def concept_vectors(
    *,
    share: Annotated[float, Gt(0), Le(1)] | None = None,
    ablate: Literal["zero", "noise"] = "zero",
    sigma: Annotated[float, Gt(0)] = 1.0,
) -> Method:
    """Wipe the MLP columns whose use is peculiar to the forget set.

    A column's use is its mean absolute attribution, |activation x gradient of the answer's NLL|, over the
    answers' positions; columns are ranked by use on forget over use on retain. share: of all layers' columns that
    are wiped (by default found by a line search for the forget-loss target with the retain floor held). ablate: set
    to zero, or add Gaussian noise of sigma times the column's own root mean square.
    """

    def prepare(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Put:
        retain = sample(splits["retain"], context.seed, 256)
        forget_LM = _use(model, list(splits["forget"]), context, "forget")
        retain_LM = _use(model, retain, context, "retain")
        peculiar_LM = forget_LM / (retain_LM + retain_LM.mean())
        order = peculiar_LM.flatten().argsort(descending=True, stable=True)
        weights = [weight_DM(model, i) for i in range(len(model.blocks))]
        before = [weight.cpu().clone() for weight in weights]
        context.notes["columns"] = len(order)

        def ablate_columns(old: Tensor, layer: int) -> Tensor:
            if ablate == "zero":
                return torch.zeros_like(old)
            noise = torch.randn(old.shape, generator=context.generator("noise", layer))
            size = old.float().square().mean(0, keepdim=True).sqrt()
            return (old.float() + sigma * size * noise).to(old.dtype)

        def put(strength: float) -> None:
            wiped = torch.zeros(len(order), dtype=torch.bool)
            wiped[order[: round(min(1.0, strength) * len(order))]] = True
            for i, columns_M in enumerate(wiped.view_as(peculiar_LM)):
                weights[i].copy_(torch.where(columns_M, ablate_columns(before[i], i), before[i]))

        return put

    return edit(prepare, share, start=1 / 64)


def _use(model: Model, rows: Sequence[Example], context: Context, name: str) -> Tensor:
    """The columns' use on the rows (see `attribution`), kept in the run's folder."""
    paths = tuple(f"{model.down(i)}:in" for i in range(len(model.blocks)))

    def measure() -> dict[str, Tensor]:
        return {"use": attribution(model, rows, paths, start_progress(context, name, len(rows)))}

    return context.once(name, measure)["use"]


def attribution(
    model: Model, rows: Sequence[Example], paths: tuple[str, ...], advance: Callable[[int], None]
) -> Tensor:
    """Mean over the rows' counted positions of |activation x gradient of the NLL|, [layers, columns]."""
    sums, positions = [], 0
    with tap(model.module, paths) as found:  # whole activations: an Output's are cut to the answer
        for _, out in passes(model, rows, size=ROWS, gradients=True, progress=advance):
            hidden = [found[path] for path in paths]
            gradients = torch.autograd.grad(out.nll_B.sum(), hidden)
            steps, seen_BT1 = out.mask_BT.shape[1], out.mask_BT[..., None]
            sums.append(
                torch.stack(
                    [
                        ((h * g)[:, -steps:] * seen_BT1).abs().sum((0, 1)).float().cpu().detach()
                        for h, g in zip(hidden, gradients, strict=True)
                    ]
                )
            )
            positions += int(out.n_B.sum())
    return torch.stack(sums).sum(0) / positions
