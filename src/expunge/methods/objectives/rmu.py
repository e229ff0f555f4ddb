"""Representation misdirection for unlearning."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Output, Run, Step, want_of
from expunge.methods._layers import choose_layer

CARD = MethodCard(
    "Representation misdirection for unlearning",
    paper="arXiv:2403.03218",
    equation="section 4",
    needs={"forget": {"hidden"}},
    capabilities={"mlp"},
    fidelity="variant",
    leaves_out="the published down-projections: whole blocks move (`weights: {layers: {part: down}}`)",
    means="On small models the down-projections alone forget next to nothing, at ten times the rate too.",
    shown="ROUGE-L of the forget answers falls to gold's, within .1, and nine tenths of the retain probability are "
    "kept.",
    distributed=True,
)
RECIPE = {"retain": "hidden", "weights": "layers", "alpha": 50.0}


class Misdirection(LossTerm):
    """The loss of rmu(); holds the direction u and the length c, fixed for the run."""

    def __init__(self, layer: int | None, c: float | None, times: float) -> None:
        self.layer, self.c, self.times = layer, c, times

    def declare(self, model: Model) -> None:
        self.path = model.blocks[choose_layer(model, self.layer)]
        self.needs: Any = {"forget": {f"hidden:{self.path}"}}

    def prepare(self, run: Run) -> None:
        """Draw u, and set c from the reference model's mean activation norm unless it is given."""
        examples = run.examples("forget")[:256]
        if not examples:  # a run of no steps
            return
        reference = run.record(examples, want_of({f"hidden:{self.path}"}))
        hidden_BTD = reference.hidden[self.path].float()
        # The first positions of a shorter answer hold its prompt or padding, which never count.
        n_B, steps = run.model.collate(examples).n_B, hidden_BTD.shape[1]
        mask_BT = torch.arange(steps)[None] >= steps - n_B[:, None]
        length = self.c if self.c is not None else self.times * float(hidden_BTD.norm(dim=-1)[mask_BT].mean())
        u_D = torch.rand(hidden_BTD.shape[-1], generator=run.context.generator("rmu"))
        self.target_D = length * u_D / u_D.norm()

    def __call__(self, step: Step) -> Tensor:
        return self.distance(step["forget"])

    def distance(self, out: Output) -> Tensor:
        """Mean squared distance of the counted positions' activations from the target."""
        hidden_BTD = out.hidden[self.path].float()
        return out.mean((hidden_BTD - self.target_D.to(hidden_BTD.device)).square().mean(-1))


def rmu(
    *,
    layer: int | None = None,
    c: Annotated[float, Gt(0)] | None = None,
    times: Annotated[float, Gt(0)] = 5.0,
) -> LossTerm:
    """Steer the forget set's activations at one layer to a fixed random direction.

    Squared error to c u, averaged over positions and dimensions; u is uniform in [0, 1)^D,
    normalised. c defaults to `times` the reference model's mean activation norm (adaptive RMU).
    """
    return Misdirection(layer, c, times)
