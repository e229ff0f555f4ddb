"""Circuit breaking by representation rerouting."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from expunge.core.contracts import LossTerm, MethodCard, Model, Run, Step, want_of
from expunge.core.errors import BadInput

CARD = MethodCard(
    "Circuit breaking: representation rerouting",
    paper="arXiv:2406.04313",
    equation="algorithm 1",
    needs={"forget": {"hidden"}, "retain": {"hidden"}},
    capabilities={"mlp"},
)
RECIPE = {"retain": "none", "stop": "none", "share": 0.2}
NUDGE = 0.02
"""Length of the step off the reference model's direction, as a share of the state's own."""
SMOOTHING = 1e-2
"""Share of the state's norm below which the change counts by its square."""


class Rerouting(LossTerm):
    """The loss of circuit_breaker(), at layers that depend on the model."""

    def __init__(self, layers: list[int] | None, keep: float) -> None:
        self.layers, self.keep = layers, keep

    def declare(self, model: Model) -> None:
        count = len(model.blocks)
        layers = self.layers or sorted({min(count - 1, round(count / 3)), min(count - 1, round(2 * count / 3))})
        if wrong := [layer for layer in layers if not 0 <= layer < count]:
            raise BadInput.of(
                "method.layers",
                wrong[0],
                f"is outside the model's {count} layers",
                f"give layers from 0 to {count - 1}",
            )
        self.paths = [model.blocks[layer] for layer in layers]
        self.nudge: dict[str, Tensor] = {}
        channels = {f"hidden:{path}" for path in self.paths}
        self.needs: Any = {"forget": channels, "retain": channels}
        self.reference: Any = self.needs

    def prepare(self, run: Run) -> None:
        """Draw one random direction per layer: at the reference model the cosine is at its maximum, without a slope."""
        for path in self.paths:
            rows = run.examples("forget")[:1]
            if rows:
                width = run.record(rows, want_of({f"hidden:{path}"})).hidden[path].shape[-1]
                drawn = torch.randn(width, generator=run.context.generator("circuit_breaker", path))
                self.nudge[path] = NUDGE * drawn / drawn.norm()

    def __call__(self, step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        total = torch.zeros((), device=forget.mask_BT.device)
        for path in self.paths:
            now, then = forget.hidden[path].float(), forget.reference.hidden[path].float()
            aim = then + then.norm(dim=-1, keepdim=True) * self.nudge[path].to(then.device)
            total = total + forget.mean(cosine_similarity(now, aim, dim=-1).relu())
            retained, was = retain.hidden[path].float(), retain.reference.hidden[path].float()
            # Smoothed near zero, where the norm has no slope and rounding would choose one.
            floor = (SMOOTHING * was.norm(dim=-1)).square()
            moved = ((retained - was).square().sum(-1) + floor).sqrt() - floor.sqrt()
            total = total + self.keep * retain.mean(moved)
        return total / len(self.paths)


def circuit_breaker(*, layers: list[int] | None = None, keep: float = 0.1) -> LossTerm:
    """Turn the forget set's activations away from where they were, and hold retain's in place.

    Mean over layers of relu(cos(h, h_ref)) on forget plus keep |h - h_ref| on retain, per position; h_ref are the
    reference model's. layers: by default at a third and two thirds of the depth. The paper changes the two weights over
    the run; here they are constant.
    """
    return Rerouting(layers, keep)
