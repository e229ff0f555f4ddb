"""RESTA: the task vector of what the base had learned added back, after entries of the change were dropped."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor

from expunge.core.contracts import Method, MethodCard
from expunge.methods.wrappers._change import ByTraining

CARD = MethodCard(
    "RESTA: realignment by task arithmetic, with drop and rescale",
    paper="arXiv:2402.11746",
    equation="section 3: theta = before + DARE(change) + gamma safety vector",
    needs={"forget": ()},
    wraps={"weights"},
    shown="On one small model whose refusals of other domains had fallen by up to a third it brought all of these "
    "back, and half of the unlearned domain's with them; interpolation brought back more of the latter.",
    means="Gives back what the base's training had taught, in proportion to gamma; the forget set was part of it.",
    fidelity="variant",
    leaves_out="a safety vector from unaligning the model: it is what the base's training added to its start",
)
RECIPE = {"inner": "npo"}


def resta(
    *,
    inner: Method,
    gamma: Annotated[float, Ge(0), Le(10)] = 0.5,
    drop: Annotated[float, Ge(0), Lt(1)] = 0.3,
    start: str | None = None,
) -> Method:
    """Run the inner method, thin out its change, and add a part of what the base's training had added.

    before + m change / (1 - drop) + gamma (before - start), m drawn per entry with P(m = 0) = drop (DARE,
    arXiv:2311.03099). start: the model that the base was trained from; by default its manifest says.
    """

    def rewrite(before: Tensor, change: Tensor, learned: Tensor, generator: torch.Generator) -> Tensor:
        if drop:
            change = change * (torch.rand(change.shape, generator=generator) >= drop) / (1 - drop)
        return before + change + gamma * learned

    return ByTraining(inner, start, rewrite, "method.resta.start")
