"""Forgetting by the membership AUC itself: forget examples lose the comparison with unseen ones."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import LossTerm, MethodCard, Run, Step
from expunge.core.errors import BadInput
from expunge.data.sampling import halves
from expunge.methods._targets import mean_nll

CARD = MethodCard(
    "AUC loss against unseen examples",
    paper="arXiv:2510.00137",
    equation="the Mann-Whitney loss, between losses of forget and of holdout examples",
    needs={"forget": {"nll"}},
    optional=("holdout",),
    fidelity="variant",
    leaves_out="scores of queries and passages: the pairs are a forget example and an unseen one, whose losses stay "
    "those of the reference model",
    means="Goes on until a forget example's loss exceeds those of most unseen ones, and hardly further.",
    shown="The AUC of the loss on labels learned by heart falls from 1 to below .7, for less of test accuracy "
    "than gradient difference takes.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy"}


class AUC(LossTerm):
    """The loss of auc(), and the losses of unseen examples, which `prepare` reads."""

    reads = ("holdout",)

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.unseen_M = torch.zeros(0)

    def prepare(self, run: Run) -> None:
        """Read half of the holdout under the reference model; the other half is for audits."""
        if not run.splits.get("holdout"):  # inside a wrapper, which the plan does not look into
            raise BadInput.of("holdout", "", "is missing, and auc compares with it", "add holdout: FILE")
        self.unseen_M = mean_nll(run.model, halves(run.splits["holdout"], run.context.seed)[0])

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        nll_B = forget.nll_B / forget.n_B.clamp(min=1)
        lead_BM = self.unseen_M.to(nll_B)[None] - nll_B[:, None]
        return forget.mean(self.scale * softplus(lead_BM / self.scale).mean(-1))


def auc(*, scale: Annotated[float, Gt(0)] = 0.2) -> LossTerm:
    """Raise each forget example's loss above those of unseen examples, and no further.

    scale softplus((u - nll)/scale), the mean over forget examples and over the losses u of unseen ones (nats per
    position): a smooth count of the pairs that an attacker who goes by the loss still gets right.
    """
    return AUC(scale)
