"""Safe LoRA: a change projected onto the directions in which the base's training had moved the weights."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.contracts import Method, MethodCard
from expunge.methods.wrappers._change import ByTraining, leading, project

CARD = MethodCard(
    "Safe LoRA: changes projected onto the base's own directions",
    paper="arXiv:2405.16833",
    equation="section 3: C change where its cosine with the change is below a threshold",
    needs={"forget": ()},
    wraps={"weights"},
    deterministic=True,
    means="A matrix whose change lies across the directions of the base's training keeps only what lies along them. "
    "On a small model that fine-tuning had made answer everything it brought back .00, .04 and .24 of the refusals "
    "(three seeds), a random basis on the same matrices more; with every matrix projected .18 to .82, and the "
    "fine-tuned task was gone.",
    fidelity="variant",
    leaves_out="C = V Vᵀ / |V|, V = before - start, which scales the change: C projects onto V's leading directions",
)
RECIPE = {"inner": "npo"}


def safe_lora(
    *,
    inner: Method,
    threshold: Annotated[float, Gt(0), Le(1)] = 0.35,
    rank: Annotated[int, Ge(1), Le(4096)] = 8,
    start: str | None = None,
) -> Method:
    """Run the inner method, and project the changes that lie across what the base had learned.

    C change where cos(C change, change) < threshold, C the projection onto the `rank` leading left singular vectors of
    before - start; biases, norms and the other matrices keep the whole change. start: the model that the base was
    trained from; by default its manifest says.
    """

    def rewrite(before: Tensor, change: Tensor, learned: Tensor, generator: torch.Generator) -> Tensor:
        if learned.dim() < 2 or not bool(learned.any()):
            return before + change
        projected = project(change, leading(learned, rank))
        across = float(projected.norm()) < threshold * float(change.norm())  # the cosine of a projection
        return before + (projected if across else change)

    return ByTraining(inner, start, rewrite, "method.safe_lora.start")
