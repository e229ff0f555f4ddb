"""Circuit breaking by representation rerouting."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
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
    fidelity="simplified",
    leaves_out="the retain term at all layers by default: it holds those that are rerouted (`held: all`)",
    shown="ROUGE-L of the forget answers falls to gold's, within .1, and 85 % of the retain probability are kept.",
)
RECIPE = {"retain": "none", "stop": "none", "share": 0.2}
NUDGE = 0.02
"""Length of the step off the reference model's direction, as a share of the state's own."""
SMOOTHING = 1e-2
"""Share of the state's norm below which the change counts by its square."""


class Rerouting(LossTerm):
    """The loss of circuit_breaker(), at layers that depend on the model."""

    def __init__(self, layers: list[int] | None, keep: float, held: str) -> None:
        self.layers, self.keep, self.held = layers, keep, held

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
        self.kept_paths = list(model.blocks) if self.held == "all" else self.paths
        self.nudge: dict[str, Tensor] = {}
        paths = {"forget": self.paths, "retain": self.kept_paths}
        self.needs: Any = {name: {f"hidden:{path}" for path in found} for name, found in paths.items()}
        self.reference: Any = self.needs

    def prepare(self, run: Run) -> None:
        """Draw one random direction per layer: at the reference model the cosine is at its maximum, without a slope."""
        self.total = max(1, run.total)
        for path in self.paths:
            rows = run.examples("forget")[:1]
            if rows:
                width = run.record(rows, want_of({f"hidden:{path}"})).hidden[path].shape[-1]
                drawn = torch.randn(width, generator=run.context.generator("circuit_breaker", path))
                self.nudge[path] = NUDGE * drawn / drawn.norm()

    def __call__(self, step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        share = min(1.0, step.index / self.total) / 2
        turned = moved = torch.zeros((), device=forget.mask_BT.device)
        for path in self.paths:
            now, then = forget.hidden[path].float(), forget.reference.hidden[path].float()
            aim = then + then.norm(dim=-1, keepdim=True) * self.nudge[path].to(then.device)
            turned = turned + forget.mean(cosine_similarity(now, aim, dim=-1).relu())
        for path in self.kept_paths:
            retained, was = retain.hidden[path].float(), retain.reference.hidden[path].float()
            # Smoothed near zero, where the norm has no slope and rounding would choose one.
            floor = (SMOOTHING * was.norm(dim=-1)).square()
            distance = ((retained - was).square().sum(-1) + floor).sqrt() - floor.sqrt()
            moved = moved + retain.mean(distance)
        return (1 - share) * turned / len(self.paths) + share * self.keep * moved / len(self.kept_paths)


def circuit_breaker(
    *,
    layers: list[int] | None = None,
    keep: Annotated[float, Ge(0)] = 1.0,
    held: Literal["rerouted", "all"] = "rerouted",
) -> LossTerm:
    """Turn the forget set's activations away from where they were, and hold retain's in place.

    (1 - s/2) relu(cos(h, h_ref)) on forget plus s/2 keep |h - h_ref| on retain, each per position and a mean over its
    layers; h_ref are the reference model's, s rises from 0 to 1 over the run's steps. layers: by default at a third and
    two thirds of the depth. held: where retain is kept in place, at these layers or at all, whose states are then
    stored for each retain example.
    """
    return Rerouting(layers, keep, held)
