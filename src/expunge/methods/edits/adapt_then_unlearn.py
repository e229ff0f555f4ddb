"""Adapt, then unlearn: a GAN is first led to what it must forget, and then trained away from where that led."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard
from expunge.methods._games import distance, play, playing, steps_of
from expunge.models.gan import Players
from expunge.models.weights import snapshot

CARD = MethodCard(
    "Adapt, then unlearn",
    paper="arXiv:2309.14054",
    equation="5 and 8 to 10",
    needs={"forget": (), "retain": ()},
    capabilities={"gan"},
    fidelity="variant",
    leaves_out="elastic weight consolidation in the adaptation, where a plain pull holds the weights; the generator's "
    "path-length penalty; pictures that the model draws and a user screens, where those of retain serve",
    means="Training on what may stay forgets by itself; what the repulsion adds is read beside `repulsion: none`.",
    shown="On digits fewer than one picture in twenty shows the class, and the others are as near to real ones as "
    "before, within a fifth; training on retain alone does as much.",
)
RECIPE = {"steps": 600, "batch_size": 64, "learning_rate": 2e-4, "stop": "none"}
Repel = Callable[[Tensor], Tensor]
FARTHEST = 4.0
"""Of `linear`, which has no bound of its own, in units of the distance that the adaptation went."""
REPULSIONS: Mapping[str, Repel] = {
    "exponential": lambda far: torch.exp(-far),
    "inverse": lambda far: 1 / far.clamp(min=1e-3),
    "linear": lambda far: -far.clamp(max=FARTHEST),
}
"""Of the distance in units of that which the adaptation went: 1 at the start."""


def adapt_then_unlearn(
    *,
    repulsion: Literal["exponential", "inverse", "linear", "none"] = "exponential",
    strength: Annotated[float, Gt(0)] = 10.0,
    pull: Annotated[float, Ge(0)] = 0.5,
    adaptations: Annotated[int, Ge(1)] = 1,
    share: Annotated[float, Gt(0)] = 0.25,
) -> Method:
    """Train the GAN on the forget set, then the original on retain, away from the weights that this led to.

    Second stage: the adversarial losses on retain, and `strength` times the mean over the adapted models of
    exp(-d / s) (or 1 over it, or minus d / s up to a bound), for both players; d is the mean squared difference of a
    tensor's entries, averaged over the tensors, and s that of the original (Tiwary et al. 2023). pull: on the weights
    of the first stage, towards the original. adaptations: adapted models, of other draws. share: steps of each first
    stage, as a share of the budget's, which are the second's.
    """

    def change(model: Any, splits: Mapping[str, Sequence[Example]], context: Context) -> int:
        forget, retain = model.pictures(splits["forget"]), model.pictures(splits["retain"])
        steps = steps_of(context, splits["retain"])
        if not steps:
            return 0
        first, beside = 0, None
        if repulsion != "none":
            first = max(1, round(share * steps))
            names = [f"adapted-{i}" for i in range(adaptations)]
            away = [_adapt(model.module, forget, first, pull, context, name) for name in names]
            beside = _beside(model.module, away, REPULSIONS[repulsion], strength, context)
        play(context, model.module, "unlearn", retain, steps, beside=beside)
        return steps + first * adaptations

    return Method(playing(change))


def _adapt(
    origin: Players, forget_NCHW: Tensor, steps: int, pull: float, context: Context, name: str
) -> dict[str, Tensor]:
    """The weights of a copy that went on with its training on the forget set."""
    players, start = copy.deepcopy(origin), snapshot(origin)  # whose weights stay as they are meanwhile
    held = (lambda now: pull * distance(now, start)) if pull else None
    play(context, players, name, forget_NCHW, steps, beside=held)
    return snapshot(players)


def _beside(
    origin: Players, away: Sequence[Mapping[str, Tensor]], repel: Repel, strength: float, context: Context
) -> Callable[[Players], Tensor]:
    """The repulsion from the adapted weights, in units of their distance from the original."""
    with torch.no_grad():
        units = [float(distance(origin, weights).clamp(min=1e-12)) for weights in away]
    context.notes["adapted_distance"] = units

    def loss(now: Players) -> Tensor:
        apart = [distance(now, weights) / unit for weights, unit in zip(away, units, strict=True)]
        return strength * torch.stack([repel(far) for far in apart]).mean()

    return loss
