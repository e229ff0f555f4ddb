"""Hidden states held at their values in the reference model."""

from __future__ import annotations

from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Step
from expunge.methods._layers import choose_layer

CARD = MethodCard(
    "Hidden-state match on retain",
    paper="arXiv:2403.03218",
    equation="section 4, retain loss",
    needs={"retain": {"hidden"}},
    reference={"retain": {"hidden"}},
)


class Match(LossTerm):
    """The loss of hidden()."""

    def __init__(self, layer: int | None) -> None:
        self.layer = layer

    def declare(self, model: Model) -> None:
        self.path = model.blocks[choose_layer(model, self.layer)]
        self.needs = {"retain": {f"hidden:{self.path}"}}
        self.reference = self.needs

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        now_BTD, then_BTD = retain.hidden[self.path].float(), retain.reference.hidden[self.path].float()
        return retain.mean((now_BTD - then_BTD).square().mean(-1))


def hidden(*, layer: int | None = None) -> LossTerm:
    """Keep the retain examples' activations at one layer where they were.

    Squared error to the reference model's hidden state, averaged over positions and dimensions.
    """
    return Match(layer)
