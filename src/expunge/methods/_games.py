"""Parts that methods of GANs share: the length of a game, its account, and the distance of weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from expunge.core.budget import batch_size
from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.methods._statistics import start_progress
from expunge.models.gan import RATE, Game, Players
from expunge.models.weights import fold, snapshot
from expunge.training.outcome import Outcome

PARTS = 4
"""Of a method's game, whose weights are stored."""


def steps_of(context: Context, rows: Sequence[Example]) -> int:
    """Steps of both players, by the budget; an epoch is a pass over these rows."""
    if context.budget.steps is not None:
        return context.budget.steps
    return int(context.budget.epochs or 1) * -(-len(rows) // batch_size(context.budget, len(rows)))


def rate_of(context: Context) -> tuple[float, str]:
    """(the generator's learning rate, where it is from)."""
    rate = context.budget.learning_rate
    return (float(rate), "the budget's") if isinstance(rate, int | float) else (RATE, "as GANs are trained here")


def outcome_of(context: Context, steps: int, rows: int, seconds: float) -> Outcome:
    """The account of steps on this many rows."""
    rate, source = rate_of(context)
    return Outcome(steps, seconds, steps * batch_size(context.budget, rows), rate, source)


def game_of(context: Context, name: str, real: Tensor, steps: int, **more: Any) -> Game:
    """A game by the budget, whose draws follow from the name."""
    return Game(
        real=real,
        steps=steps,
        batch=batch_size(context.budget, len(real)),
        draw=context.generator(name),
        rate=rate_of(context)[0],
        advance=partial(start_progress(context, name, steps), 1),
        **more,
    )


def play(context: Context, players: Players, name: str, real: Tensor, steps: int, **more: Any) -> None:
    """Trains the players in place, in parts that each begin with new moments: a run that is resumed plays no part
    that it has stored."""
    for i in range(PARTS):
        length = (i + 1) * steps // PARTS - i * steps // PARTS
        if length:
            part = f"{name}-{i}"
            players.load_state_dict(
                context.once(part, partial(_weights_after, context, players, part, real, length, more))
            )


def _weights_after(
    context: Context, players: Players, name: str, real: Tensor, steps: int, more: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The weights after so many steps more."""
    game_of(context, name, real, steps, **more).play(players)
    return {key: value.clone() for key, value in snapshot(players).items()}


def distance(players: Players, weights: Mapping[str, Tensor]) -> Tensor:
    """The mean over the tensors of the mean squared difference of their entries."""
    apart = [(p - weights[name].to(p)).square().mean() for name, p in players.named_parameters()]
    return torch.stack(apart).mean()


def playing(
    change: Callable[[Any, Mapping[str, Sequence[Example]], Context], int],
) -> Callable[[Model, Mapping[str, Sequence[Example]], Context], Model]:
    """A method's change of a GAN; what `change` returns are the steps that it took."""

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        began = time.monotonic()
        fold(model.module)
        steps = change(model, splits, context)
        outcome = outcome_of(context, steps, len(splits["retain"]), time.monotonic() - began)
        context.notes["outcome"] = dataclasses.asdict(outcome)
        model.module.eval()
        return model

    return apply
