"""Erased stable diffusion, for classes."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Step, Stream
from expunge.core.errors import BadInput

CARD = MethodCard(
    "Erased stable diffusion",
    paper="arXiv:2303.07345",
    equation="7",
    needs={"forget": {"hidden"}},
    reference={"forget": {"hidden"}, "unasked": {"hidden"}},
    streams={"unasked": Stream(split="forget")},
    capabilities={"conditions"},
    fidelity="variant",
    leaves_out="noisy pictures that the model samples for each step: real ones of the class are noised instead, "
    "which is faster and needs the forget set",
    means="The published method has no retain term; on small models the other classes go too without one.",
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


class AwayFromClass(LossTerm):
    """The loss of esd(); `head` is the layer whose output is the predicted noise."""

    def __init__(self, guidance: float) -> None:
        super().__init__(self.distance)
        self.guidance, self.head = guidance, "conv_out"

    def declare(self, model: Model) -> None:
        bare: Any = model
        if bare.nothing is None:
            why = "has no label that stands for no class"
            raise BadInput.of("method", "esd", f"needs one, and the model {why}", "train it with `dropped` above 0")
        self.head = bare.head
        channel = {f"hidden:{self.head}"}
        self.needs = {"forget": channel}
        self.reference = {"forget": channel, "unasked": channel}
        self.streams = {"unasked": Stream(split="forget", make=bare.without_condition)}

    def distance(self, step: Step) -> Tensor:
        """Mean squared distance, per pixel, of the prediction for the class from its target."""
        forget, unasked = step["forget"], step["unasked"]
        own_BD, there_BD, none_BD = (
            hidden[self.head][:, -1] for hidden in (forget.hidden, forget.reference.hidden, unasked.reference.hidden)
        )
        target_BD = none_BD - self.guidance * (there_BD - none_BD)
        return forget.mean((own_BD - target_BD).square().mean(-1))


def esd(*, guidance: Annotated[float, Ge(0)] = 1.0) -> LossTerm:
    """Teach the class to predict the noise of no class, moved away from the class (Gandikota et al. 2023).

    |e(x_t, c) - (e_0(x_t, none) - guidance (e_0(x_t, c) - e_0(x_t, none)))|^2, averaged over pixels and batch; e_0 is
    the reference model, at the same time and noise.
    """
    return AwayFromClass(guidance)
