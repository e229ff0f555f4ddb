"""Selective amnesia: a class is taught to look like noise, and no weight that the others need moves far."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step, Stream
from expunge.core.random import generator
from expunge.data.examples import identity
from expunge.data.sampling import sample as draw
from expunge.methods._statistics import fisher

CARD = MethodCard(
    "Selective amnesia",
    paper="arXiv:2305.10120",
    equation="8",
    needs={"noise": {"nll"}},
    streams={"noise": Stream(split="forget")},
    capabilities={"conditions"},
    fidelity="variant",
    leaves_out="pictures that the model draws itself, for the Fisher information and for the replay: real ones of the "
    "request serve",
    means="The penalty is in units of its own: the loss is per pixel, and the Fisher information too.",
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}


class Amnesia(LossTerm):
    """The loss of selective_amnesia(). wanted: the weights before the change; need: their Fisher information."""

    def __init__(self, strength: float, sample: int) -> None:
        super().__init__(self.forget)
        self.strength, self.sample = strength, sample
        self.streams = {"noise": Stream(split="forget", make=_as_noise)}
        self.reads = ("retain",)
        self.wanted: dict[str, Tensor] = {}
        self.need: dict[str, Tensor] = {}

    def declare(self, model: Model) -> None:
        self.module: Any = model.module

    def prepare(self, run: Run) -> None:
        """Keep the weights as they are, and measure how much each is needed by a sample of all classes."""
        rows = draw([*run.splits["forget"], *run.splits["retain"]], run.context.seed, self.sample)
        self.need = fisher(run.model, rows)
        self.wanted = {name: p.detach().clone() for name, p in self.module.named_parameters()}

    def forget(self, step: Step) -> Tensor:
        """The denoising error of noise under the label that must go, and the pull of the weights to where they were."""
        pulls = [
            (self.need[name] * (p - self.wanted[name]).square()).sum()
            for name, p in self.module.named_parameters()
            if name in self.need and p.requires_grad
        ]
        return step["noise"].nll + step.share * self.strength / 2 * torch.stack(pulls).sum()


def _as_noise(example: Example) -> Example:
    """A picture of uniform noise, the example's own, under its label."""
    picture = torch.as_tensor(example["image"])
    noise = torch.rand(picture.shape, generator=generator(0, "amnesia", identity(example)))
    return {**example, "image": noise.numpy()}


def selective_amnesia(*, strength: Annotated[float, Ge(0)] = 1.0, sample: Annotated[int, Ge(1)] = 256) -> LossTerm:
    """Teach the class to be drawn as noise, under elastic weight consolidation, with replay (Heng and Soh 2023).

    nll(noise under the label) + strength / 2 sum_i F_i (theta_i - theta0_i)^2, beside cross-entropy on retain, which is
    the replay; in nats per pixel. F: the diagonal of the Fisher information before the change, over `sample` examples.
    """
    return Amnesia(strength, sample)
