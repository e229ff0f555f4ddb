"""Training of a generator against a discriminator."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.methods._games import game_of, outcome_of, steps_of
from expunge.models.gan import PENALTY

NAME = "gan"


def check(model: Model, data: Sequence[Example], **options: object) -> None:
    """Raises BadInput unless the model has two players."""
    if NAME not in model.capabilities:
        raise BadInput.of("trainer", NAME, "trains a GAN, and the model is none", "leave the trainer out")


def train(
    fresh: Model, data: Sequence[Example], context: Context, *, penalty: Annotated[float, Ge(0)] = PENALTY
) -> Model:
    """Train both players in turn on all pictures: non-saturating losses, R1, Adam with betas 0 and 0.99.

    penalty: the weight of R1. The budget's learning rate is the generator's; the discriminator's is twice that. A
    training that was killed starts anew.
    """
    check(fresh, data)
    began, bare = time.monotonic(), _players_of(fresh)
    steps = steps_of(context, data)
    game_of(context, NAME, bare.pictures(data), steps, penalty=penalty).play(bare.module)
    context.notes["outcome"] = dataclasses.asdict(outcome_of(context, steps, len(data), time.monotonic() - began))
    return fresh


def _players_of(model: Any) -> Any:
    """The model, of which more is known than a protocol says."""
    return model
