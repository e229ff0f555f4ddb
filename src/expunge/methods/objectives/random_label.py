"""Random labels."""

import torch
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Output, Run, Step
from expunge.data.examples import identity

CARD = MethodCard(
    "Random labelling",
    paper="arXiv:1911.04933",
    equation="section 5, random labels",
    needs={"forget": {"logits"}},
    capabilities={"labels"},
    fidelity="faithful",
    shown="A class of digits is forgotten, also on unseen images; of wrong labels learned by heart two thirds go, for "
    "eight points of test accuracy.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


class Relabelling(LossTerm):
    """The loss of random_label(); `draws` holds a whole number for each row of the forget set."""

    def __init__(self, fresh: bool) -> None:
        self.fresh = fresh
        self.draws: dict[int, int] = {}

    def prepare(self, run: Run) -> None:
        """Draw by each example's identity, so that it has one label for the whole run."""
        rows = zip(run.rows("forget"), run.examples("forget"), strict=True)
        self.draws = {i: run.context.derive("label", identity(example)) for i, example in rows}

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        true_B1, classes = forget.labels_BT, forget.logits_BTV.shape[-1]
        if self.fresh:
            drawn = _draw_now(step, forget, classes)
        else:
            drawn = [1 + self.draws[i] % (classes - 1) for i in forget.indices]
        shift_B1 = torch.tensor(drawn, dtype=torch.long)[:, None].to(true_B1.device)
        other_B1 = (true_B1 + shift_B1) % classes
        logp_BTV = forget.logits_BTV.log_softmax(-1)
        return forget.mean(-logp_BTV.gather(-1, other_B1[..., None])[..., 0])


def _draw_now(step: Step, forget: Output, classes: int) -> list[int]:
    """A shift of each example's label from 1 to classes - 1, by the step's generator."""
    rows = list(forget.rows or range(len(forget.labels_BT)))
    drawn = [int(torch.randint(1, classes, (1,), generator=step.generator)) for _ in range(max(rows, default=-1) + 1)]
    return [drawn[row] for row in rows]


def random_label(*, fresh: bool = False) -> LossTerm:
    """Train forget examples on random labels, never the true one, each on the same throughout the run.

    Cross-entropy (nats) to a uniform draw from the other classes. fresh: draw anew at each step, whose expectation is
    the uniform distribution over the other classes.
    """
    return Relabelling(fresh)
