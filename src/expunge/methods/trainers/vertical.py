"""Logistic regression over parties that hold different columns of the same rows, of whom nobody shows a column.

Suffixes: B rows of a step, F columns, C classes, P parties.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import nn

from expunge.core.budget import batch_size
from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.core.random import derive, permutation
from expunge.models.classifier import floats

NAME = "vertical"
SCALE = 2.0**32
"""Whole numbers per unit in what a party sends: sums of these are exact, and masks vanish without a rest."""
LARGEST = 2.0**20
"""Of a partial logit: beyond it the whole numbers would overflow."""


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """Raises BadInput unless the model is one linear layer over a table that has columns enough."""
    linear = layer_of(model)
    cut(options["parties"], linear.in_features)


def layer_of(model: Model) -> nn.Linear:
    """The model's only layer. Raises BadInput where there is another."""
    layers = [module for module in model.module.modules() if any(True for _ in module.parameters(recurse=False))]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear) or layers[0].bias is None:
        why, fix = "trains one linear layer, and the model is another", "give expunge.models.networks:Linear"
        raise BadInput.of("trainer", NAME, why, fix)
    return layers[0]


def cut(parties: int | Sequence[int], columns: int) -> list[slice]:
    """The columns of each party. Raises BadInput where they are not all columns."""
    sizes = [len(part) for part in np.array_split(range(columns), parties)] if isinstance(parties, int) else parties
    if sum(sizes) != columns or min(sizes) < 1:
        why = f"do not divide {columns} columns"
        raise BadInput.of(f"trainer.{NAME}.parties", str(parties), why, "give each party's number of columns")
    ends = [0, *itertools.accumulate(sizes)]
    return [slice(first, last) for first, last in itertools.pairwise(ends)]


@dataclass
class Party:
    """A holder of some columns. It sees its own columns and weights, and of each step the residuals [B, C]."""

    place: int
    columns_NF: np.ndarray
    weights_CF: np.ndarray
    keys: dict[int, int]
    """Other party -> the seed that both have of the authority."""

    def send(self, rows: Sequence[int], step: int) -> np.ndarray:
        """Its part of the logits [B, C] in whole numbers, behind the masks that it shares with each other party."""
        parts_BC = self.columns_NF[rows] @ self.weights_CF.T
        if np.abs(parts_BC).max(initial=0.0) > LARGEST:
            raise BadInput.of(
                f"trainer.{NAME}", step, "is a step at which training diverged", "lower the learning rate"
            )
        return hide(parts_BC, self.place, self.keys, step)

    def learn(self, rows: Sequence[int], residuals_BC: np.ndarray, rate: float) -> None:
        """A step of its own weights along the residuals."""
        self.weights_CF = self.weights_CF - rate * residuals_BC.T @ self.columns_NF[rows]


@dataclass
class Server:
    """The holder of the labels. It sees each step's sums of the parties' parts, and its own bias [C]."""

    members: Sequence[Party]
    bias_C: np.ndarray
    labels_N: np.ndarray
    rate: float
    steps: int = 0
    rows: int = 0

    def step(self, rows: Sequence[int]) -> None:
        """A step of all parties on these rows."""
        messages = [party.send(rows, self.steps) for party in self.members]
        residuals = residuals_of(unmask(messages) + self.bias_C, self.labels_N[rows])
        for party in self.members:
            party.learn(rows, residuals, self.rate)
        self.bias_C -= self.rate * residuals.sum(0)
        self.steps, self.rows = self.steps + 1, self.rows + len(rows)

    def account(self) -> dict[str, Any]:
        """Steps, rows and bytes, in the form of a training's outcome: numbers of 8 bytes, as many down as up."""
        sent = 8 * self.rows * len(self.bias_C) * len(self.members)
        traffic = {"parties": len(self.members), "bytes_up": sent, "bytes_down": sent}
        return {"steps": self.steps, "tokens": self.rows, "federation": traffic}


def hide(values: np.ndarray, place: int, keys: Mapping[int, int], step: int) -> np.ndarray:
    """The values in whole numbers, behind the masks that the party of this place shares with each other one."""
    message = np.round(values * SCALE).astype(np.int64).view(np.uint64)
    for other, key in keys.items():
        mask = np.random.default_rng([key, step]).integers(0, 2**64, values.shape, dtype=np.uint64)
        message = message + mask if place < other else message - mask
    return message


def unmask(messages: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of the parties' parts: the masks cancel modulo 2**64, and no part can be told from a draw."""
    total = np.zeros_like(messages[0])
    for message in messages:
        total = total + message
    return total.view(np.int64) / SCALE


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    parties: Annotated[int, Ge(2), Le(1000)] | list[int] = 2,
) -> Model:
    """Train one linear layer whose columns lie with several parties, by steps along the gradient.

    Each step, every party sends its part of the logits behind pairwise masks; the server, who has the labels, learns
    their sum alone and answers with the residuals p - y, by which each party changes its own weights. The model is that
    of training on all columns, to rounding. parties: their number, or each one's number of columns, in order. Learning
    rate, batch size and epochs are the budget's; the rate is steady. Source: FedV, arXiv:2103.03918, with the masks of
    arXiv:1611.04482 in the place of its functional encryption: the masks hide a party's part from the server, and
    nothing else. Residuals, from which labels can be told, go to all parties, whom FedV's keys would not show them; the
    generator of the masks is numpy's, so that this is the protocol's arithmetic and not its protection.
    Raises BadInput.
    """
    began, linear = time.monotonic(), layer_of(fresh)
    table_NF, labels_N = table_of(data)
    columns, epochs = cut(parties, linear.in_features), int(context.budget.epochs or 1)
    server = learn(table_NF, labels_N, linear, columns, context, epochs, NAME)
    write(server, linear)
    fresh.module.eval()
    context.notes["outcome"] = server.account() | {"seconds": time.monotonic() - began}
    return fresh


def table_of(data: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """(rows [N, F] in float64, labels [N])."""
    table = np.stack([floats(row["features"] if "features" in row else row["image"]).ravel() for row in data])
    return table.astype(np.float64), np.array([int(row["label"]) for row in data])


def learn(
    table_NF: np.ndarray,
    labels_N: np.ndarray,
    linear: nn.Linear,
    columns: Sequence[slice],
    context: Context,
    epochs: int,
    stage: str,
) -> Server:
    """The server after so many passes of its parties from the layer's weights on.

    stage: of the draws of batches and masks; each training of a run needs its own, or a mask would come twice.
    """
    members, bias_C = join_parties(table_NF, linear, columns, context, stage)
    size, rate = batch_size(context.budget, len(labels_N)), float(context.budget.learning_rate or 0.0)
    server = Server(members, bias_C, labels_N, rate)
    context.reporter.start(stage, epochs)
    for epoch in range(epochs):
        order = permutation(len(labels_N), context.derive(stage, epoch))
        for first in range(0, len(order), size):
            server.step(order[first : first + size])
        context.reporter.advance(stage, epoch + 1, f"epoch {epoch + 1}")
    context.reporter.finish(stage)
    return server


@torch.no_grad()
def write(server: Server, linear: nn.Linear) -> None:
    """Put the parties' weights and the server's bias into the layer."""
    linear.weight.copy_(torch.from_numpy(np.concatenate([party.weights_CF for party in server.members], 1)))
    linear.bias.copy_(torch.from_numpy(server.bias_C))


def join_parties(
    table_NF: np.ndarray, linear: nn.Linear, columns: Sequence[slice], context: Context, stage: str
) -> tuple[list[Party], np.ndarray]:
    """(the parties with their columns and the seeds that they share, the server's bias [C])."""
    weights_CF = linear.weight.detach().double().numpy().copy()
    pairs = itertools.combinations(range(len(columns)), 2)
    seeds = {pair: derive(context.seed, NAME, stage, *pair) for pair in pairs}
    members = []
    for i, part in enumerate(columns):
        keys = {j: seeds[min(i, j), max(i, j)] for j in range(len(columns)) if j != i}
        members.append(Party(i, table_NF[:, part], weights_CF[:, part].copy(), keys))
    return members, linear.bias.detach().double().numpy().copy()


def residuals_of(logits_BC: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
    """The mean cross-entropy's gradient by the logits [B, C]: softmax less one-hot, over the rows."""
    shifted = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    chances = shifted / shifted.sum(1, keepdims=True)
    chances[np.arange(len(labels_B)), labels_B] -= 1
    return chances / len(labels_B)
