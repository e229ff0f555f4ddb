"""Training on retain of weights that were moved back towards the start of the base's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Run, Step
from expunge.models.build import again, check_retrainable

CARD = MethodCard(
    "Shrink and perturb, then train on retain",
    paper="arXiv:1910.08475",
    equation="section 4.1",
    needs={"retain": {"nll"}},
    fidelity="variant",
    leaves_out="noise of another draw: the weights move towards those that the base's training began with",
    shown="On drawn shapes, three seeds, beside random_condition at .3 of its weight with a third of the way back: "
    "after attacks by vectors, by words and by an adapter at most .11 more comes back than from gold, and the others "
    "lose 5 to 15 points.",
    means="The nearer to the start, the more of what is left was learned from retain alone, as in gold, and the more "
    "steps it takes. A term beside it that compares with the model before the change compares with the moved weights.",
)


class Moved(LossTerm):
    """The loss of shrink_and_perturb(), whose `prepare` moves the weights."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        """Raises BadInput where the base's training cannot be begun again."""
        check_retrainable(manifest, model, "shrink_and_perturb")

    def prepare(self, run: Run) -> None:
        """Move every weight: also on resume, where a checkpoint's weights come after this."""
        manifest = run.context.manifest
        assert manifest is not None, "fits() refuses a model without one"
        start = dict(again(manifest, run.model).module.named_parameters())
        with torch.no_grad():
            for name, parameter in run.model.module.named_parameters():
                if name in start:
                    parameter.lerp_(start[name].to(parameter), self.share)

    def __call__(self, step: Step) -> Tensor:
        return step["retain"].nll


def shrink_and_perturb(*, share: Annotated[float, Ge(0), Le(1)] = 0.5) -> LossTerm:
    """Move all weights towards the base's start, and train what is left on retain (Ash and Adams 2020).

    (1 - share) own + share start, once, where start are the weights that the base's training began with; then the mean
    loss on retain, by the position. At share 1 it is a shorter retraining, at 0 fine-tuning.
    """
    return Moved(share)
