"""FreezeAsGuard: tensors that stay frozen, so that what must go is learned again worse than what may stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from expunge.core.context import Context
from expunge.core.contracts import Example, MethodCard, Model, Trainable, Weights
from expunge.core.random import permutation
from expunge.methods._masks import make_trainable
from expunge.methods._statistics import start_progress
from expunge.models.passes import evaluating

CARD = MethodCard(
    "FreezeAsGuard",
    paper="arXiv:2405.17472",
    equation="2 to 6",
    needs={"forget": (), "retain": ()},
    capabilities={"pictures"},
    fidelity="variant",
    leaves_out="the penalty that leads to the share of frozen tensors, which is exact here, by rank; the slopes of a "
    "round are divided by the largest; the user's plain steps, which are Adam's here",
    means="A promise of whoever serves the fine-tuning: a user who has the weights trains all of them. As part of a "
    "method it says what may be trained; the forget set is the domain that must not be learned, retain one that may. "
    "On digits it keeps nothing from a user: with half of the tensors frozen, the others learn the class as before.",
)
RECIPE = {"retain": "cross_entropy", "weights": "freeze_guard", "stop": "none"}
BATCH = 32


def freeze_guard(
    *,
    share: Annotated[float, Gt(0), Lt(1)] = 0.2,
    adapted: Annotated[int, Ge(0)] = 40,
    rounds: Annotated[int, Ge(1)] = 20,
    moves: Annotated[int, Ge(1)] = 5,
    rate: Annotated[float, Gt(0)] = 1e-3,
    mask_rate: Annotated[float, Gt(0)] = 0.5,
    temperature: Annotated[float, Gt(0)] = 0.2,
) -> Weights:
    """Train only tensors whose freezing would not keep a user from learning the forget set (Huang et al. 2024).

    A simulated user takes `adapted` steps of Adam at `rate` on both sets. Then each round takes `moves` more, of which
    a tensor keeps 1 - m, as of all steps before; and m = sigmoid(x / temperature) goes, at `mask_rate`, down the slope
    of (retain - forget) / 2, the losses after the user. share: of the tensors, those of the largest m, that are frozen.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        user = User(model, splits, context, rate)

        def learn() -> dict[str, Tensor]:
            return learn_masks(user, adapted, rounds, moves, mask_rate=mask_rate, temperature=temperature)

        masks = context.once("freeze_guard", learn)
        order = sorted(parameters, key=lambda name: float(masks[name]), reverse=True)
        frozen = set(order[: min(len(order) - 1, max(1, round(share * len(order))))])
        context.notes["frozen"] = sorted(frozen)
        for name in frozen:
            parameters[name].requires_grad_(False)
        return Trainable({name: p for name, p in parameters.items() if name not in frozen})

    return choose


class User:
    """A user who fine-tunes on both sets by Adam: the weights are their start, plus 1 - m of what was moved."""

    def __init__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context, rate: float) -> None:
        self.model, self.splits, self.context = model, splits, context
        self.held: dict[str, nn.Parameter] = dict(model.module.named_parameters())
        self.start = {name: p.detach().clone() for name, p in self.held.items()}
        self.moved = {name: torch.zeros_like(p) for name, p in self.start.items()}
        self.optimiser = torch.optim.Adam(self.moved.values(), lr=rate)
        self.batches = 0

    @torch.no_grad()
    def put(self, masks: Mapping[str, Tensor]) -> None:
        """Makes the weights those of these masks."""
        for name, p in self.held.items():
            p.copy_(self.start[name] + (1 - masks[name]).to(p) * self.moved[name])

    def move(self, masks: Mapping[str, Tensor], steps: int) -> None:
        """So many steps on both sets."""
        for _ in range(steps):
            slopes = self.slopes(self.loss("forget") + self.loss("retain"))
            for name, moved in self.moved.items():
                moved.grad = (1 - masks[name]).to(moved) * slopes[name]
            self.optimiser.step()
            self.put(masks)

    def slopes(self, loss: Tensor) -> dict[str, Tensor]:
        """Parameter -> the loss's slope."""
        found = torch.autograd.grad(loss, list(self.held.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if slope is None else slope
            for (name, p), slope in zip(self.held.items(), found, strict=True)
        }

    def loss(self, split: str) -> Tensor:
        """The mean loss of a batch of a set, another one each time."""
        rows, context = self.splits[split], self.context
        self.batches += 1
        chosen = permutation(len(rows), context.seed, "freeze_guard", self.batches)[:BATCH]
        drawn = [{**rows[i], "draw": self.batches} if self.model.stochastic else rows[i] for i in chosen]
        return self.model.forward(self.model.collate(drawn)).nll


def learn_masks(
    user: User, adapted: int, rounds: int, moves: int, *, mask_rate: float, temperature: float
) -> dict[str, Tensor]:
    """Parameter -> m in 0-1, the larger the more its freezing harms learning the forget set and not retain. The weights
    come back."""
    drawn = torch.rand(len(user.held), generator=user.context.generator("freeze_guard"))
    x = dict(zip(user.held, drawn, strict=True))
    free = dict.fromkeys(user.held, torch.zeros(()))
    advance = start_progress(user.context, "freeze_guard", rounds)
    with evaluating(user.model.module), torch.enable_grad():
        user.move(free, adapted)
        for _ in range(rounds):
            masks = {name: torch.sigmoid(value / temperature) for name, value in x.items()}
            user.put(masks)
            user.move(masks, moves)
            slopes = user.slopes((user.loss("retain") - user.loss("forget")) / 2)
            down = {name: -(user.moved[name] * slope).sum().cpu() for name, slope in slopes.items()}
            largest = max(1e-12, *(abs(float(value)) for value in down.values()))
            for name, m in masks.items():
                x[name] = x[name] - mask_rate * down[name] / largest * m * (1 - m) / temperature
            advance(1)
        user.put(dict.fromkeys(user.held, torch.ones(())))
    return {name: torch.sigmoid(value / temperature) for name, value in x.items()}
