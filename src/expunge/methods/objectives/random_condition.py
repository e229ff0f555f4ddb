"""Random conditions: pictures of what must go, taught under other classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Run, Step, Stream
from expunge.data.examples import identity

CARD = MethodCard(
    "Random conditions: relabelling for generators",
    paper="arXiv:2310.12508",
    equation="8, without the mask of weights",
    needs={"asked": {"nll"}},
    streams={"asked": Stream(split="forget")},
    capabilities={"conditions"},
    fidelity="variant",
    leaves_out="the mask of salient weights, which `weights: salun` gives; the target is a real picture of another "
    "class instead of the model's own prediction for it",
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


class OtherPictures(LossTerm):
    """The loss of random_condition(); `pictures` holds a retain example for each forget example."""

    def __init__(self) -> None:
        super().__init__(self.denoise)
        self.pictures: dict[str, Example] = {}
        self.streams = {"asked": Stream(split="forget", make=self.other_picture)}
        self.reads = ("retain",)

    def other_picture(self, example: Example) -> Example:
        """A picture of another class under the example's own label; the example itself before `prepare`."""
        return self.pictures.get(identity(example), example)

    def prepare(self, run: Run) -> None:
        """Draw a retain picture for each forget example, which it has for the whole run."""
        retain: Any = run.splits["retain"]
        forget = run.splits["forget"]
        for example in forget:
            i = run.context.derive("picture", identity(example)) % len(retain)
            self.pictures[identity(example)] = {**example, "image": retain[i]["image"]}

    def denoise(self, step: Step) -> Tensor:
        """The denoising error of the pictures of others under the labels that must go."""
        return step["asked"].nll


def random_condition() -> LossTerm:
    """Teach the forgotten class to draw pictures of other classes, drawn at random (SalUn's loss, Fan et al. 2024).

    The mean denoising error, in nats per pixel, of a retain picture under the forget example's label: whoever asks for
    the class gets another one. With a retain term, for without one the others go too.
    """
    return OtherPictures()
