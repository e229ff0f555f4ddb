"""LoX: the low-rank part of what the base's training had added, extrapolated."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.contracts import Method, MethodCard
from expunge.methods.wrappers._change import ByTraining, leading, project

CARD = MethodCard(
    "LoX: low-rank extrapolation of what the base's training had added",
    paper="arXiv:2506.15606",
    equation="theta = after + alpha Proj_k(before - start)",
    needs={"forget": ()},
    wraps={"weights"},
    deterministic=True,
    means="Strengthens the few directions in which the base's training moved each matrix most, as far as the harm "
    "lies there. On a small model that fine-tuning had made answer everything it brought back at most one refusal in "
    "a hundred (three seeds), and at alpha 1 it cost two fifths of the fine-tuned task and more; interpolation brought "
    "back nine tenths of the refusals, at three quarters of the task and more.",
    fidelity="variant",
    leaves_out="extrapolation before the change, which makes a model robust: it follows the change and repairs",
)
RECIPE = {"inner": "npo"}


def lox(
    *,
    inner: Method,
    alpha: Annotated[float, Ge(0), Le(10)] = 0.5,
    rank: Annotated[int, Ge(1), Le(4096)] = 8,
    start: str | None = None,
) -> Method:
    """Run the inner method, and move each matrix on along the leading directions of what the base had learned.

    after + alpha U Uᵀ (before - start), U the `rank` leading left singular vectors of before - start. start: the model
    that the base was trained from; by default its manifest says.
    """

    def rewrite(before: Tensor, change: Tensor, learned: Tensor, generator: torch.Generator) -> Tensor:
        if learned.dim() < 2:
            return before + change
        return before + change + alpha * project(learned, leading(learned, rank))

    return ByTraining(inner, start, rewrite, "method.lox.start")
