"""Sharded, sliced training: the place of each example, and the stages, each stored when it is done.

Shard and slice of an example follow from its hash (its identity and the seed), and so does its place within the slice,
so that removing one example moves no other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core import processes
from expunge.core.budget import Budget, batch_size
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.data.pairing import by_hash
from expunge.methods.objective import plain_training
from expunge.models.weights import snapshot
from expunge.training import checkpoint

Slices = list[list[Example]]
DEFAULT_EPOCHS = 10
"""Epochs where the budget gives neither epochs nor steps."""


def place(example: Example, shards: int, slices: int, seed: int) -> tuple[int, int]:
    """Return (shard, slice) of an example, both from 0."""
    key = identity(example)
    return derive(seed, "shard", key) % shards, derive(seed, "slice", key) % slices


def parts(data: Sequence[Example], shards: int, slices: int, seed: int) -> list[Slices]:
    """Examples by [shard][slice], in the order of their hashes. Some slices may be empty."""
    pieces: list[Slices] = [[[] for _ in range(slices)] for _ in range(shards)]
    for example in by_hash(data, seed):
        shard, number = place(example, shards, slices, seed)
        pieces[shard][number].append(example)
    return pieces


def stage_budget(budget: Budget, examples: int, slices: int) -> Budget:
    """The budget of one stage: 2/(R+1) of the epochs, in whole steps, on `examples` examples.

    The R stages on 1/R, 2/R, ... of the data then take as many steps as the epochs on all of it
    (Bourtoule et al. 2021, section VI).
    """
    values = budget.model_dump(exclude_unset=True)
    epochs = values.pop("epochs", None) or DEFAULT_EPOCHS
    steps_per_epoch = -(-examples // batch_size(budget, examples))
    values["steps"] = max(1, round(2 * epochs / (slices + 1) * steps_per_epoch)) if examples else 0
    return Budget(**values)


def check_shape(data: Sequence[Example], slices: int, pieces: int, name: str) -> None:
    """Require an example for every slice, and one process. Raises BadInput.

    pieces: shards times slices. name: the scheme, for errors.
    """
    if pieces > len(data):
        raise BadInput.of(
            f"exact.{name}.slices",
            slices,
            f"makes {pieces} slices in all, and there are {len(data)} examples",
            "take fewer shards or slices",
        )
    one_process(f"exact.{name}")


def check_base(fresh: Model, name: str, what: str) -> None:
    """Require a model whose trained base has a name on disk or the hub. Raises BadInput.

    name: the scheme; what: the parts it trains on the base; both for errors.
    """
    if getattr(fresh, "merged", False):
        raise BadInput.of(
            "exact",
            name,
            f"trains {what} on a frozen base, and this model is itself an adapter on one",
            "merge the adapter into its base, and give the folder of the merged model",
        )
    if not getattr(fresh, "source", ""):
        raise BadInput.of(
            "exact",
            name,
            f"trains {what} on a frozen base, and this model has untrained weights",
            "give as model a folder or a hub name",
        )


def base_source(model: Any) -> str:
    """Name a model's trained base: an absolute path, or a hub name."""
    source = str(model.source)
    return str(Path(source).resolve()) if Path(source).exists() else source


def one_process(where: str) -> None:
    """Raise BadInput under several processes: exact schemes train their shards one after another."""
    if processes.world() > 1:
        raise BadInput.of(
            where,
            processes.world(),
            "processes were started, and an exact scheme runs in one",
            "start it as one process, without accelerate launch",
        )


def weights_of(model: Model) -> dict[str, Tensor]:
    """Copy all weights and buffers to the CPU."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in snapshot(model.module).items()}


@dataclass
class Stages:
    """Runs stages on one module, and adds up their cost.

    seed, stage, budget: those of the model's training, whatever the context's are, so that a stage retrained on the
    same examples gives the same bits. slices: R, for the stage's share of the epochs.
    """

    model: Model
    seed: int
    stage: str
    budget: Budget
    slices: int
    context: Context
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    took: dict[str, int] = field(default_factory=dict)
    """Steps of each stage that was run."""

    def run(
        self, name: str, rows: Sequence[Example], before: Mapping[str, Tensor], method: Method | None = None
    ) -> dict[str, Tensor]:
        """Return the weights after training on the rows from `before`, or `before` where there are no rows.

        A finished stage is not run again (`context.once`); an interrupted one resumes from its checkpoint.
        """
        if not rows:
            self.took[name] = 0
            return dict(before)
        inner = self.context.child(name, seed=self.seed, budget=self.budget)
        inner.stage = inner.label = f"{self.stage}/{name}"

        def train() -> dict[str, Tensor]:
            began = time.monotonic()
            weights, outcome = self.train(inner, rows, before, method)
            spent = [outcome["steps"], outcome["tokens"], max(outcome["seconds"], time.monotonic() - began)]
            return {**{f"weights.{k}": v for k, v in weights.items()}, "cost": torch.tensor(spent, dtype=torch.float64)}

        stored = self.context.once(name, train)
        checkpoint.clear(inner.folder)
        steps, tokens, seconds = stored.pop("cost").tolist()
        self.steps += int(steps)
        self.tokens += int(tokens)
        self.seconds += seconds
        self.took[name] = int(steps)
        return {k.removeprefix("weights."): v for k, v in stored.items()}

    def train(
        self, inner: Context, rows: Sequence[Example], before: Mapping[str, Tensor], method: Method | None
    ) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """Return (the weights after one stage, its steps, tokens and seconds)."""
        inner.budget = stage_budget(self.budget, len(rows), self.slices)
        checkpoint.restore(self.model.module, before, "")
        (method or plain_training())(self.model, {"retain": list(rows)}, inner)
        weights = weights_of(self.model) if method is None else {k: _parameter(self.model, k) for k in before}
        return weights, inner.notes["outcome"]

    def outcome(self) -> dict[str, Any]:
        """Sum the stages, in the form of a training run's outcome."""
        rate = self.budget.learning_rate
        return {
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "curve": [],
            "stop": {},
            "learning_rate": float(rate) if isinstance(rate, float | int) else 0.0,
            "rate_source": "as in training",
        }


def _parameter(model: Model, name: str) -> Tensor:
    """Copy one parameter to the CPU."""
    return model.module.get_parameter(name).detach().cpu().clone().contiguous()
