"""Mixture outlier exposure: mixtures of forget and retain examples are as unsure as their share of the forget one."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Run, Step, Stream
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.methods._inputs import array_field, put_array, unit_array

CARD = MethodCard(
    "Mixture outlier exposure",
    paper="arXiv:2106.03917",
    equation="4, with linear mixtures and one share for each outlier",
    needs={"mixed": {"logits"}},
    capabilities={"labels"},
    streams={"mixed": Stream(split="forget")},
    optional=("retain",),
    fidelity="variant",
    leaves_out="outliers from elsewhere, which are the forget examples here, and a new draw of the share and partner "
    "in each step",
    means="The forget examples come to look like nothing that the model knows, and what lies between them and retain "
    "stays in between.",
    shown="A class of digits is told from unseen digits of the others at an AUROC over .95 afterwards, as under gold, "
    "for 3 points of the others' accuracy at most.",
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


class MixtureOutliers(LossTerm):
    """The loss of mixture_outliers(), the partner of each forget example and its share."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.partners: list[Example] = []
        self.shares: dict[int, float] = {}
        self.seed = 0
        self.streams = {"mixed": Stream(split="forget", make=self._mix)}

    def prepare(self, run: Run) -> None:
        """Let the retain examples be partners."""
        self.partners = list(run.splits.get("retain", []))
        self.seed = run.context.derive("mixture") % 2**63
        self.shares = {row: self._share(run.splits["forget"][row]) for row in run.rows("mixed")}

    def _share(self, example: Example) -> float:
        """How much of a mixture is the retain example's; 0 without one."""
        if not self.partners:
            return 0.0
        draw = np.random.default_rng(derive(self.seed, "share", identity(example)))
        return float(draw.beta(self.alpha, self.alpha))

    def _mix(self, example: Example) -> Example:
        """The mixture, with its retain example's label; the example itself without one."""
        if not self.partners:
            return example
        partner = self.partners[derive(self.seed, "partner", identity(example)) % len(self.partners)]
        name, share = array_field(example, "mixture_outliers"), self._share(example)
        mixed = share * unit_array(partner, name) + (1 - share) * unit_array(example, name)
        return {**put_array(example, name, mixed), "label": partner["label"]}

    def __call__(self, step: Step) -> Tensor:
        mixed = step["mixed"]
        logp_BV = mixed.logits_BTV[:, 0].log_softmax(-1)
        share_B = logp_BV.new_tensor([self.shares[row] for row in mixed.indices])
        label_B = logp_BV.gather(-1, mixed.labels_BT)[:, 0]
        return mixed.mean(-(share_B * label_B + (1 - share_B) * logp_BV.mean(-1)))


def mixture_outliers(*, alpha: Annotated[float, Gt(0)] = 1.0) -> LossTerm:
    """Teach mixtures of a forget and a retain example the retain label by its share, and no class by the rest.

    Cross-entropy (nats) of s x_retain + (1 - s) x_forget with s of the retain label and (1 - s) of the uniform
    distribution; s and the retain example are drawn once for each forget example.
    """
    return MixtureOutliers(alpha)
