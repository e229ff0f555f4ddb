"""UNSIR: impair with noise in the place of the forget examples, then repair."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step, Stream
from expunge.core.errors import BadInput
from expunge.data.examples import identity
from expunge.methods._inputs import array_field, numeric, put_array, with_input
from expunge.models.passes import evaluating

CARD = MethodCard(
    "UNSIR: error-maximising noise, impair and repair",
    paper="arXiv:2111.08947",
    equation="3 and algorithm 1",
    needs={"noise": {"nll"}},
    streams={"noise": Stream(split="forget")},
    capabilities={"labels"},
    fidelity="faithful",
    means="The forget inputs are never looked at: of each example only the label is.",
    shown="A tenth of a class of digits is left at most, at half of the gap to gold that the same steps on retain "
    "alone come to.",
)
RECIPE = {"retain": "cross_entropy", "epochs": 4, "share": 1.0, "stop": "none"}


class Noise(LossTerm):
    """The loss of unsir(); noise: identity of a forget example -> the numbers in its place, which `prepare` makes."""

    def __init__(self, impair: int, steps: int, rate: float, penalty: float) -> None:
        super().__init__(streams={"noise": Stream(split="forget", make=self._in_its_place)})
        self.impair, self.steps, self.rate, self.penalty = impair, steps, rate, penalty
        self.noise: dict[str, np.ndarray] = {}

    def _in_its_place(self, example: Example) -> Example:
        if (found := self.noise.get(identity(example))) is None:
            return example  # rows are counted before there is any noise
        return put_array(example, array_field(example, "unsir"), found)

    def prepare(self, run: Run) -> None:
        """Make the noise against the reference model."""
        self.noise = {}
        if rows := run.examples("noise"):
            generator = run.context.generator("noise")
            found = run.context.once("noise", lambda: {"noise": self._against(run.model, rows, generator)})["noise"]
            self.noise = {identity(row): value.numpy() for row, value in zip(rows, found, strict=True)}

    def _against(self, model: Model, rows: list[Example], generator: torch.Generator) -> Tensor:
        """Noise [N, ...] that the model takes for anything but the rows' labels. Raises BadInput."""
        batch = model.collate(rows)
        name = numeric(batch, "unsir")
        noise_N = torch.randn(batch.inputs[name].shape, generator=generator)
        field = array_field(rows[0], "unsir")
        put = model.collate([put_array(rows[0], field, noise_N[0].numpy())]).inputs.get(name)
        if put is None or not torch.equal(put[0], noise_N[0]):
            why = "puts noise in the place of inputs, and this model changes them before it reads them"
            raise BadInput.of("method", "unsir", why, "choose another method, or give arrays that it reads as they are")
        noise_N.requires_grad_()
        optimiser = torch.optim.Adam([noise_N], lr=self.rate)
        with evaluating(model.module), torch.enable_grad():
            for _ in range(self.steps):
                out = model.forward(with_input(batch, name, noise_N))
                size_N = noise_N.square().flatten(1).mean(1)
                loss = (self.penalty * size_N.to(out.nll_B.device) - out.nll_B).sum()
                (noise_N.grad,) = torch.autograd.grad(loss, noise_N)
                optimiser.step()
        return noise_N.detach()

    def __call__(self, step: Step) -> Tensor:
        noise = step["noise"]
        return noise.nll * float(step.epoch < self.impair)


def unsir(
    *,
    impair: Annotated[int, Ge(1)] = 1,
    steps: Annotated[int, Ge(1)] = 40,
    rate: Annotated[float, Gt(0)] = 0.1,
    penalty: Annotated[float, Ge(0)] = 0.1,
) -> LossTerm:
    """Train on noise that bears the labels to forget, and then on retain alone.

    Cross-entropy (nats) on one noise per forget example under its label, in the first `impair` epochs only; those that
    follow repair. The noise starts standard normal, and `steps` steps of Adam at `rate` maximise its loss under the
    reference model less `penalty` times its mean square.
    """
    return Noise(impair, steps, rate, penalty)
