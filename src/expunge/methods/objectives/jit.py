"""Just-in-time unlearning: the outputs are smoothed around the forget examples."""

from __future__ import annotations

import functools
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Run, Step, Stream
from expunge.core.random import derive
from expunge.methods._inputs import array_field, put_array, unit_array

CARD = MethodCard(
    "Just-in-time unlearning by Lipschitz regularisation",
    paper="arXiv:2402.01401",
    equation="6",
    needs={"forget": {"logits"}},
    streams={"copy_0": Stream(split="forget")},
    capabilities={"labels"},
    fidelity="variant",
    leaves_out="fresh perturbations at every step: each example keeps its own throughout the run",
    means="Reads neither labels nor retain data. Where many examples share what is to go, as those of a class do, "
    "other outputs flatten sooner than theirs, so that of a class it ends no nearer to gold than fine-tuning.",
    shown="A sixth of wrong labels learned by heart goes, with nine tenths of retain left; of a class of digits "
    "nothing does.",
)
RECIPE = {"retain": "none", "epochs": 3, "share": 0.3, "stop": "none"}


class Smoothing(LossTerm):
    """The loss of jit(); lengths: row -> the norm of each of its perturbations."""

    def __init__(self, sigma: float, copies: int) -> None:
        self.sigma, self.seed = sigma, 0
        self.lengths: dict[int, list[float]] = {}
        self.names = [f"copy_{number}" for number in range(copies)]
        makers = {name: functools.partial(self._perturb, copy=name) for name in self.names}
        super().__init__(
            needs={name: {"logits"} for name in ("forget", *self.names)},
            streams={name: Stream(split="forget", make=make) for name, make in makers.items()},
        )

    def _perturb(self, example: Example, copy: str) -> Example:
        """The example with normal noise on its numbers, drawn by these and not by its label."""
        field = array_field(example, "jit")
        array = unit_array(example, field)
        draws = np.random.default_rng(derive(self.seed, copy, array.tobytes().hex()))
        return put_array(example, field, array + self.sigma * draws.standard_normal(array.shape, dtype=np.float32))

    def prepare(self, run: Run) -> None:
        """Draw by the run's seed, and measure what was drawn."""
        self.seed = run.context.derive("jit")
        for row, example in zip(run.rows("forget"), run.examples("forget"), strict=True):
            field = array_field(example, "jit")
            own = unit_array(example, field)
            moved = [unit_array(self._perturb(example, name), field) for name in self.names]
            self.lengths[row] = [float(np.linalg.norm(other - own)) for other in moved]

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        slopes = []
        for number, name in enumerate(self.names):
            lengths = [self.lengths[i][number] for i in forget.indices]
            length_B = torch.tensor(lengths, device=forget.logits_BTV.device).clamp(min=1e-6)
            apart_B = torch.linalg.vector_norm((step[name].logits_BTV - forget.logits_BTV).flatten(1), dim=1)
            slopes.append(forget.mean(apart_B / length_B))
        return torch.stack(slopes).mean()


def jit(*, sigma: Annotated[float, Gt(0)] = 0.2, copies: Annotated[int, Ge(1), Le(64)] = 4) -> LossTerm:
    """Flatten the outputs around each forget example, by which the network loses what it made of it.

    |f(x + e) - f(x)| / |e|, f the logits and e normal with deviation `sigma` in the inputs' unit (bytes in 0-1), a mean
    over examples and over `copies` perturbations of each.
    """
    return Smoothing(sigma, copies)
