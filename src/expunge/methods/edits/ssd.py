"""Selective synaptic dampening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.data.sampling import sample as drawn
from expunge.methods._statistics import counted, fisher, parameters
from expunge.methods.edits._strength import fitted
from expunge.models.weights import fold

CARD = MethodCard(
    "Selective synaptic dampening",
    paper="arXiv:2308.07707",
    equation="3 and 4",
    needs={"forget": (), "retain": ()},
    means="Weights that the forget set needs more than all data do are shrunk; nothing is trained.",
)


def dampened(weight: Tensor, forget: Tensor, everything: Tensor, alpha: float, strength: float) -> Tensor:
    """theta min(lambda F_all / F_forget, 1) where F_forget > alpha F_all, else theta."""
    factor = (strength * everything / forget.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
    return torch.where(forget > alpha * everything, weight.float() * factor, weight.float()).to(weight.dtype)


def ssd(
    *,
    alpha: Annotated[float, Gt(0)] | None = None,
    dampening: Annotated[float, Gt(0)] = 1.0,
    sample: Annotated[int, Ge(1)] = 256,
    batch: Annotated[int, Ge(1)] = 1,
) -> Method:
    """Shrink the weights that matter more to the forget set than to all the data.

    theta min(dampening F_all / F_forget, 1) where F_forget > alpha F_all; F the diagonals of the empirical Fisher
    information over forget, and over forget and retain together. alpha: a ratio (the paper's is 10; by default
    the one that reaches the forget level with the budget's floor held). sample: retain examples that stand for
    all, at most, drawn by seed. batch: examples whose gradients are squared together; more is faster and coarser.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        parts = {"forget": list(splits["forget"]), "retain": drawn(splits["retain"], context.seed, sample)}
        found = {
            name: context.once(
                name,
                lambda rows=rows, name=name: fisher(  # type: ignore[misc]
                    model, rows, batch, counted(context, name, len(rows))
                ),
            )
            for name, rows in parts.items()
        }
        share = len(splits["forget"]) / (len(splits["forget"]) + len(splits["retain"]))
        held = parameters(model)
        before = {name: p.detach().cpu().clone() for name, p in held.items()}

        @torch.no_grad()
        def put(strength: float) -> None:
            for name, p in held.items():
                if not strength:
                    p.copy_(before[name])
                    continue
                forget = found["forget"][name]
                everything = share * forget + (1 - share) * found["retain"][name]
                p.copy_(dampened(before[name], forget, everything, 1 / strength, dampening))

        if alpha is None:
            fitted(model, splits, context, put, start=0.1)
        else:
            put(1 / alpha)
        return model

    return Method(apply)
