"""Concept ablation: what must go is predicted as something else is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step, Stream
from expunge.data.examples import identity

CARD = MethodCard(
    "Concept ablation",
    paper="arXiv:2303.13516",
    equation="5, model-based variant",
    needs={"asked": {"hidden"}},
    reference={"anchor": {"hidden"}},
    streams={"asked": Stream(split="forget"), "anchor": Stream(split="forget")},
    capabilities={"conditions"},
    fidelity="variant",
    leaves_out="one anchor concept with pictures that the model draws of it: the anchors are real pictures of retain, "
    "drawn at random, and the target is the reference model's prediction for each",
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}
CONDITIONS = ("label", "class_prompt")
"""Keys by which a picture is asked for."""


class OtherPredictions(LossTerm):
    """The loss of concept_ablation(); `pictures` holds a retain example for each forget example."""

    def __init__(self) -> None:
        super().__init__(self.distance)
        self.head = "conv_out"
        self.pictures: dict[str, Example] = {}
        self.reads = ("retain",)
        self.streams = {
            "asked": Stream(split="forget", make=self.under_own_condition),
            "anchor": Stream(split="forget", make=self.other_picture),
        }

    def other_picture(self, example: Example) -> Example:
        """A picture of another class under its own condition; the example itself before `prepare`."""
        return self.pictures.get(identity(example), example)

    def under_own_condition(self, example: Example) -> Example:
        """The same picture under the condition that must go."""
        return {**self.other_picture(example), **{key: example[key] for key in CONDITIONS if key in example}}

    def declare(self, model: Model) -> None:
        bare: Any = model
        self.head = bare.head
        channel = {f"hidden:{self.head}"}
        self.needs, self.reference = {"asked": channel}, {"anchor": channel}

    def prepare(self, run: Run) -> None:
        """Draw a retain example for each forget example, which it has for the whole run."""
        retain: Any = run.splits["retain"]
        for example in run.splits["forget"]:
            place = run.context.derive("picture", identity(example)) % len(retain)
            self.pictures[identity(example)] = dict(retain[place])

    def distance(self, step: Step) -> Tensor:
        """Mean squared distance, per pixel, from the reference model's prediction for the picture's own condition."""
        now_BD = step["asked"].hidden[self.head][:, -1]
        then_BD = step["anchor"].reference.hidden[self.head][:, -1]
        return step["asked"].mean((now_BD - then_BD).square().mean(-1))


def concept_ablation() -> LossTerm:
    """Teach the model to predict, asked for the concept, what it predicted for another one (Kumari et al. 2023).

    |e(x_t, c) - e_0(x_t, c_a)|^2, averaged over pixels and batch; x is a retain picture and c_a its own condition, e_0
    the reference model at the same time and noise.
    """
    return OtherPredictions()
