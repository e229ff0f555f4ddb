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
    "round are divided by the largest",
    means="A promise of whoever serves the fine-tuning: a user who has the weights trains all of them. As part of a "
    "method it says what may be trained; the forget set is the domain that must not be learned, retain one that may.",
)
RECIPE = {"retain": "cross_entropy", "weights": "freeze_guard", "stop": "none"}
BATCH = 32


def freeze_guard(
    *,
    share: Annotated[float, Gt(0), Lt(1)] = 0.2,
    rounds: Annotated[int, Ge(1)] = 20,
    moves: Annotated[int, Ge(1)] = 5,
    rate: Annotated[float, Gt(0)] = 1e-3,
    mask_rate: Annotated[float, Gt(0)] = 0.5,
    temperature: Annotated[float, Gt(0)] = 0.2,
) -> Weights:
    """Train only tensors whose freezing would not keep a user from learning the forget set (Huang et al. 2024).

    Each round a simulated user takes `moves` steps of Adam at `rate` on both sets, of which a tensor keeps 1 - m; then
    m = sigmoid(x / temperature) goes, at `mask_rate`, down the slope of (retain - forget) / 2, the losses after the
    user. share: of the tensors, those of the largest m, that are frozen.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        settings: dict[str, Any] = {"moves": moves, "rate": rate, "mask_rate": mask_rate, "temperature": temperature}
        masks = context.once("freeze_guard", lambda: learn_masks(model, splits, context, rounds, **settings))
        order = sorted(parameters, key=lambda name: float(masks[name]), reverse=True)
        frozen = set(order[: min(len(order) - 1, max(1, round(share * len(order))))])
        context.notes["frozen"] = sorted(frozen)
        for name in frozen:
            parameters[name].requires_grad_(False)
        return Trainable({name: p for name, p in parameters.items() if name not in frozen})

    return choose


def learn_masks(
    model: Model,
    splits: Mapping[str, Sequence[Example]],
    context: Context,
    rounds: int,
    *,
    moves: int,
    rate: float,
    mask_rate: float,
    temperature: float,
) -> dict[str, Tensor]:
    """Parameter -> m in 0-1, the larger the more its freezing harms learning the forget set and not retain. The weights
    come back."""
    held: dict[str, nn.Parameter] = dict(model.module.named_parameters())
    start = {name: p.detach().clone() for name, p in held.items()}
    x = dict(zip(held, torch.rand(len(held), generator=context.generator("freeze_guard")), strict=True))
    advance = start_progress(context, "freeze_guard", rounds)
    with evaluating(model.module), torch.enable_grad():
        for turn in range(rounds):
            masks = {name: torch.sigmoid(value / temperature) for name, value in x.items()}
            _adapt(model, splits, context, held, moves, rate, turn)
            with torch.no_grad():
                moved = {name: p - start[name] for name, p in held.items()}
                for name, p in held.items():
                    p.copy_(start[name] + (1 - masks[name]).to(p) * moved[name])
            loss = (_loss(model, splits["retain"], context, turn) - _loss(model, splits["forget"], context, turn)) / 2
            slopes = torch.autograd.grad(loss, list(held.values()), allow_unused=True)
            with torch.no_grad():
                down = {
                    name: torch.zeros(()) if slope is None else -(moved[name] * slope).sum().cpu()
                    for (name, slope) in zip(held, slopes, strict=True)
                }
                largest = max(1e-12, *(abs(float(value)) for value in down.values()))
                for name, m in masks.items():
                    x[name] = x[name] - mask_rate * down[name] / largest * m * (1 - m) / temperature
                    held[name].copy_(start[name])
            advance(1)
    return {name: torch.sigmoid(value / temperature) for name, value in x.items()}


def _adapt(
    model: Model,
    splits: Mapping[str, Sequence[Example]],
    context: Context,
    held: Mapping[str, nn.Parameter],
    moves: int,
    rate: float,
    turn: int,
) -> None:
    """A user's steps on both sets, of all weights."""
    optimiser = torch.optim.Adam(held.values(), lr=rate)
    for move in range(moves):
        place = turn * (moves + 1) + move + 1
        loss = _loss(model, splits["forget"], context, place) + _loss(model, splits["retain"], context, place)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _loss(model: Model, rows: Sequence[Example], context: Context, place: int) -> Tensor:
    """The mean loss of a batch of these rows, drawn by its place."""
    chosen = permutation(len(rows), context.seed, "freeze_guard", place)[:BATCH]
    drawn = [{**rows[i], "draw": place + 1} if model.stochastic else rows[i] for i in chosen]
    return model.forward(model.collate(drawn)).nll
