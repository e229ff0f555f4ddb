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
from expunge.methods._statistics import ROWS, counted
from expunge.methods.edits._keys import weight_DM
from expunge.methods.edits._strength import fitted
from expunge.models.passes import passes
from expunge.models.weights import fold, tapped

CARD = MethodCard(
    "Concept-vector ablation",
    paper="arXiv:2406.11614",
    equation="section 5, noise on the concept vectors",
    needs={"forget": (), "retain": ()},
    capabilities=("tokens", "mlp"),
    means="Vectors are found by attribution, where the paper has annotators read them off the vocabulary.",
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
    are wiped (by default what reaches the forget level with the budget's floor held). ablate: set to zero, or
    add Gaussian noise of sigma times the column's own root mean square.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        paths = tuple(f"{model.down(i)}:in" for i in range(len(model.blocks)))
        parts = {"forget": list(splits["forget"]), "retain": sample(splits["retain"], context.seed, 256)}
        used = {
            name: context.once(
                name,
                lambda rows=rows, name=name: {
                    "use": attribution(  # type: ignore[misc]
                        model, rows, paths, counted(context, name, len(rows))
                    )
                },
            )["use"]
            for name, rows in parts.items()
        }
        peculiar = used["forget"] / (used["retain"] + used["retain"].mean())
        order = peculiar.flatten().argsort(descending=True, stable=True)
        weights = [weight_DM(model, i) for i in range(len(paths))]
        before = [weight.cpu().clone() for weight in weights]
        context.notes["columns"] = len(order)

        @torch.no_grad()
        def put(strength: float) -> None:
            wiped = torch.zeros(len(order), dtype=torch.bool)
            wiped[order[: round(min(1.0, strength) * len(order))]] = True
            for i, (weight, old, columns) in enumerate(zip(weights, before, wiped.view_as(peculiar), strict=True)):
                new = old.clone()
                if ablate == "zero":
                    new[:, columns] = 0
                else:
                    noise = torch.randn(old.shape, generator=context.generator("noise", i))
                    size = old.float().square().mean(0, keepdim=True).sqrt()
                    new[:, columns] = (old.float() + sigma * size * noise).to(old.dtype)[:, columns]
                weight.copy_(new)

        if share is None:
            fitted(model, splits, context, put, start=1 / 64)
        else:
            put(share)
        return model

    return Method(apply)


def attribution(
    model: Model, rows: Sequence[Example], paths: tuple[str, ...], advance: Callable[[int], None]
) -> Tensor:
    """[layers, columns]: mean over the rows' counted positions of |activation x gradient of the NLL|."""
    sums, positions = [], 0
    with tapped(model.module, paths) as found:  # whole activations: an Output's are cut to the answer
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
