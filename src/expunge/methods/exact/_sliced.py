"""Sharded, sliced training: which example stands where, and the stages, each stored when it is done.

Shard and slice of an example follow its hash (its identity and the seed), and so does the order of
a slice, so that removing one example moves no other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from expunge.training import checkpoint

Slices = list[list[Example]]
EPOCHS = 10
"""Where a budget says neither epochs nor steps."""


def place(example: Example, shards: int, slices: int, seed: int) -> tuple[int, int]:
    """(shard, slice) of an example, both from 0."""
    key = identity(example)
    return derive(seed, "shard", key) % shards, derive(seed, "slice", key) % slices


def parts(data: Sequence[Example], shards: int, slices: int, seed: int) -> list[Slices]:
    """[shard][slice] -> its examples, in the order of their hashes. Some may be empty."""
    found: list[Slices] = [[[] for _ in range(slices)] for _ in range(shards)]
    for example in by_hash(data, seed):
        shard, number = place(example, shards, slices, seed)
        found[shard][number].append(example)
    return found


def stage_budget(budget: Budget, examples: int, slices: int) -> Budget:
    """The budget of one stage: 2/(R+1) of the epochs, in whole steps, on `examples` examples.

    So R stages on 1/R, 2/R, ... of the data take as many steps as the epochs on all of it
    (Bourtoule et al. 2021, section VI).
    """
    values = budget.model_dump(exclude_unset=True)
    epochs = values.pop("epochs", None) or EPOCHS
    an_epoch = -(-examples // batch_size(budget, examples))
    values["steps"] = max(1, round(2 * epochs / (slices + 1) * an_epoch)) if examples else 0
    return Budget(**values)


def check_shape(data: Sequence[Example], slices: int, pieces: int, name: str) -> None:
    """Are there examples for all slices, and one process. Raises BadInput.

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
    """Raise BadInput unless this is a model whose trained base can be named on disk.

    name: the scheme; what: what it trains on the base, for errors.
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


def one_process(where: str) -> None:
    """Exact schemes train their shards one after another. Raises BadInput under several processes."""
    if processes.world() > 1:
        raise BadInput.of(
            where,
            processes.world(),
            "processes cannot share an exact scheme",
            "start it as one process, without accelerate launch",
        )


def weights_of(model: Model) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    from expunge.models.weights import snapshot

    return {name: value.detach().cpu().clone().contiguous() for name, value in snapshot(model.module).items()}


@dataclass
class Stages:
    """Runs stages on one module, and adds up what they cost.

    seed, stage, budget: those of the model's training, whatever the context's are, so that a stage
    that is trained again on the same examples gives the same bits. slices: R, for the stage's share.
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
        """The weights after training on the rows from `before`; those themselves where there are no rows.

        A finished stage is not run again (`context.once`), a broken one goes on from its checkpoint.
        """
        if not rows:
            self.took[name] = 0
            return dict(before)
        inner = self.context.child(name, seed=self.seed, budget=stage_budget(self.budget, len(rows), self.slices))
        inner.stage = inner.label = f"{self.stage}/{name}"

        def make() -> dict[str, Tensor]:
            from expunge.methods.objective import plain_training

            began = time.monotonic()
            checkpoint.restore(self.model.module, before, "")
            (method or plain_training())(self.model, {"retain": list(rows)}, inner)
            outcome = inner.notes["outcome"]
            spent = [outcome["steps"], outcome["tokens"], max(outcome["seconds"], time.monotonic() - began)]
            weights = weights_of(self.model) if method is None else {k: _of(self.model, k) for k in before}
            return {**{f"weights.{k}": v for k, v in weights.items()}, "cost": torch.tensor(spent, dtype=torch.float64)}

        found = self.context.once(name, make)
        checkpoint.clear(inner.folder)
        steps, tokens, seconds = found.pop("cost").tolist()
        self.steps, self.tokens, self.seconds = (
            self.steps + int(steps),
            self.tokens + int(tokens),
            self.seconds + seconds,
        )
        self.took[name] = int(steps)
        return {k.removeprefix("weights."): v for k, v in found.items()}

    def outcome(self) -> dict[str, Any]:
        """The sum of the stages, in the form of a training run's outcome."""
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


def _of(model: Model, name: str) -> Tensor:
    return model.module.get_parameter(name).detach().cpu().clone().contiguous()
