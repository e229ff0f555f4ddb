"""Boundary shrink: the forget examples go to the class across the nearest boundary."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Run, Step, want_of
from expunge.methods._inputs import step_up
from expunge.models.passes import outputs

CARD = MethodCard(
    "Boundary shrink",
    paper="doi:10.1109/CVPR52729.2023.00750",
    equation="boundary shrink",
    needs={"forget": {"logits"}},
    capabilities={"labels"},
    fidelity="variant",
    leaves_out="the true class as its own neighbour: a step that crosses no boundary would teach what is to go",
    means="For whole classes, and for wrong labels, whose neighbour is mostly the right one. Other examples' "
    "neighbours are classes that they are not of, and every class suffers. Where a small step crosses into no other "
    "class, as of drawn shapes in colour, most of the class stays, more than after fine-tuning.",
    shown="A class of digits or of MNIST goes, within three points of gold and without retain data; so do wrong "
    "labels learned by heart, at a fifth of fine-tuning's gap or less.",
)
RECIPE = {"retain": "none", "stop": "none"}


class Neighbours(LossTerm):
    """The loss of boundary_shrink(); labels: row -> the class across the boundary, which `prepare` finds."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.labels: dict[int, int] = {}

    def prepare(self, run: Run) -> None:
        """Find each forget row's neighbouring class under the reference model."""
        if rows := run.rows("forget"):
            found = run.context.once("neighbours", lambda: {"labels": self._neighbours(run)})["labels"]
            self.labels = dict(zip(rows, found.tolist(), strict=True))

    def _neighbours(self, run: Run) -> Tensor:
        """The likeliest class but the true one of each row after its step, [N]."""
        examples = run.examples("forget")
        moved = list(step_up(run.model, examples, self.bound, "boundary_shrink"))
        labels_N = torch.zeros(len(examples), dtype=torch.long)
        for indices, out in outputs(run.model, moved, want_of({"logits"})):
            others_BTV = out.logits_BTV.scatter(-1, out.labels_BT[..., None], -torch.inf)
            labels_N[indices] = others_BTV[:, 0].argmax(-1).cpu()
        return labels_N

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        labels = [self.labels[i] for i in forget.indices]
        label_B1 = torch.tensor(labels, dtype=torch.long, device=forget.logits_BTV.device)[:, None]
        return forget.mean(-forget.logits_BTV.log_softmax(-1).gather(-1, label_B1[..., None])[..., 0])


def boundary_shrink(*, bound: Annotated[float, Gt(0), Le(1)] = 0.1) -> LossTerm:
    """Train forget examples on the class that lies across the nearest decision boundary; no retain data.

    Cross-entropy (nats) to the likeliest class but the true one after one signed-gradient step up the example's loss
    under the reference model. bound: the step, as a share of the range of the inputs, which are clipped to that range.
    """
    return Neighbours(bound)
