"""UNSIR: impair with noise in the place of the forget examples, then repair."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.contracts import Batch, Example, LossTerm, MethodCard, Model, Run, Step, Stream
from expunge.core.errors import BadInput
from expunge.data.examples import identity
from expunge.methods._inputs import array_field, numeric, with_input
from expunge.models.passes import batches, evaluating

CARD = MethodCard(
    "UNSIR: error-maximising noise, impair and repair",
    paper="arXiv:2111.08947",
    equation="3 and algorithm 1",
    needs={"noise": {"nll"}},
    streams={"noise": Stream(split="forget")},
    capabilities={"labels"},
    fidelity="faithful",
    means="The forget inputs are never looked at: of each example only the label is. Where the noise does not come to "
    "look like the class, nothing of it goes: drawn shapes end no nearer to gold than fine-tuning.",
    shown="A quarter of a class of digits is left at most, at six tenths of the gap to gold that the same steps on "
    "retain alone come to.",
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
        return {**example, array_field(example, "unsir"): found}

    def prepare(self, run: Run) -> None:
        """Make the noise against the reference model."""
        self.noise = {}
        rows, draws = run.examples("noise"), run.context.generator("noise")
        made: dict[str, np.ndarray] = {}
        for indices, batch in batches(rows, run.model.length, run.model.collate):
            found = self._against(run.model, batch, rows[indices[0]], draws)
            made |= {identity(rows[i]): value.numpy() for i, value in zip(indices, found, strict=True)}
        self.noise = made

    def _against(self, model: Model, batch: Batch, first: Example, draws: torch.Generator) -> Tensor:
        """Noise [B, ...] that the model takes for anything but the batch's labels. Raises BadInput."""
        name = numeric(batch, "unsir")
        noise_B = torch.randn(batch.inputs[name].shape, generator=draws)
        put = model.collate([{**first, array_field(first, "unsir"): noise_B[0].numpy()}]).inputs[name]
        if put.shape[1:] != noise_B.shape[1:] or not torch.equal(put[0], noise_B[0]):
            why = "puts noise in the place of inputs, and this model changes them before it reads them"
            raise BadInput.of("method", "unsir", why, "choose another method, or give arrays that it reads as they are")
        noise_B.requires_grad_()
        optimiser = torch.optim.Adam([noise_B], lr=self.rate)
        with evaluating(model.module), torch.enable_grad():
            for _ in range(self.steps):
                out = model.forward(with_input(batch, name, noise_B))
                size_B = noise_B.square().flatten(1).mean(1)
                loss = (self.penalty * size_B.to(out.nll_B.device) - out.nll_B).sum()
                (noise_B.grad,) = torch.autograd.grad(loss, noise_B)
                optimiser.step()
        return noise_B.detach()

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
