"""Training and deletion of sharded, sliced ensembles: SISA, and the base of further schemes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core import processes
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model
from expunge.core.files import new_folder, write_json
from expunge.methods.exact import _deletion as deletion
from expunge.methods.exact._sliced import Slices, Stages, parts, stage_budget, weights_of
from expunge.models.build import again
from expunge.models.ensemble import ENSEMBLE, Ensemble
from expunge.models.open import open_ensemble
from expunge.models.weights import load_weights
from expunge.training import checkpoint

Finish = Callable[[Path, dict[str, Any], Sequence[Example], bool], None]
"""Adds to the state what a scheme needs beyond SISA.

Arguments: the new folder, its state, the training data, whether the model's own code may run."""


@dataclass(frozen=True)
class Sharding:
    """Where rows stand and how a stage trains on them: those of SISA. finish: what a scheme adds to the state."""

    finish: Finish | None = None

    def parts(self, rows: Sequence[Example], state: Mapping[str, Any]) -> list[Slices]:
        """The rows by [shard][slice]: a row's place is its own, whatever the others are."""
        options = state["options"]
        return parts(rows, int(options["shards"]), int(options["slices"]), int(state["seed"]))

    def stages(self, fresh: Model, state: Mapping[str, Any], context: Context) -> Stages:
        """The stages of the training that the state tells of."""
        given = (int(state["seed"]), str(state["stage"]), deletion.budget_in(state), int(state["options"]["slices"]))
        return Stages(fresh, *given, context)

    def steps_of(self, piece: Slices, state: Mapping[str, Any]) -> list[int]:
        """Steps of each stage of a shard that has these slices."""
        budget, sizes = deletion.budget_in(state), [len(part) for part in piece]
        return [int(stage_budget(budget, sum(sizes[: i + 1]), len(sizes)).steps or 0) for i in range(len(sizes))]


def train_shards(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    scheme: str,
    options: dict[str, Any],
    sharding: Sharding,
) -> Ensemble:
    """Train all shards from the same start, slice after slice. options: shards and slices, at least."""
    state = deletion.new_state(scheme, options, context)
    stages = sharding.stages(fresh, state, context)
    start = weights_of(fresh)
    folder = context.folder / "ensemble"
    with new_folder(folder) as temporary:
        pieces = sharding.parts(data, state)
        for k, piece in enumerate(pieces):
            _grow(stages, temporary / f"shard-{k}", k, piece, start, 0)
        _conclude(temporary, state, pieces, data, sharding.finish, fresh.trusted)
    context.notes["outcome"] = stages.outcome()
    return open_ensemble(folder, trust_code=fresh.trusted)


def _grow(stages: Stages, target: Path, k: int, piece: Slices, before: Mapping[str, Tensor], first: int) -> None:
    """Train shard k from slice `first` on, and write its checkpoints and its final model."""
    target.mkdir(exist_ok=True)
    weights = dict(before)
    for i in range(first, len(piece)):
        rows = [row for part in piece[: i + 1] for row in part]
        weights = stages.run(f"shard-{k}-slice-{i + 1}", rows, weights)
        if i + 1 < len(piece):
            save_file(weights, target / slice_file(i + 1))
    checkpoint.restore(stages.model.module, weights, "")
    stages.model.module.eval()
    stages.model.save(target)


def slice_file(number: int) -> str:
    """Name the checkpoint after the first `number` slices; after all of them it is the shard's model."""
    return f"slice-{number}.safetensors"


def _conclude(
    folder: Path,
    state: dict[str, Any],
    pieces: Sequence[Slices],
    data: Sequence[Example],
    finish: Finish | None,
    trust_code: bool,
) -> None:
    """Write ensemble.json, the last file of the folder."""
    state["shards"] = [{"examples": [len(part) for part in piece]} for piece in pieces]
    state["members"] = [f"shard-{k}" for k, piece in enumerate(pieces) if any(piece)]
    write_json(folder / ENSEMBLE, state)
    if finish is not None:
        finish(folder, state, data, trust_code)
        write_json(folder / ENSEMBLE, state)


@dataclass
class ShardDeletion(Method):
    """The method: retrains each shard from its first slice that held a forget example."""

    sharding: Sharding = Sharding()
    steps: int = 0
    """Steps that the planned deletion will take."""

    def fits(
        self, model: Ensemble, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        """Return notes for the plan, and set `steps`. Raises BadInput where the forget set cannot be deleted."""
        left, gone, notes = deletion.history(manifest, splits, model)
        if model.fair:
            for rows in splits.values():
                model.fair.places(rows)
        pieces, firsts = self._split(model.state, left, gone)
        for k in range(len(pieces)):
            deletion.require_part(model.folder / f"shard-{k}")
            for i in range(1, firsts.get(k, 0) + 1):
                path = model.folder / f"shard-{k}" / slice_file(i)
                load_weights(model.members[0].module, path, "model", shapes_alone=True)
        self.steps = sum(sum(self.sharding.steps_of(pieces[k], model.state)[first:]) for k, first in firsts.items())
        return notes

    def _split(
        self, state: Mapping[str, Any], left: Sequence[Example], gone: Sequence[Example]
    ) -> tuple[list[Slices], dict[int, int]]:
        """Return (rows that stay by shard and slice, affected shard -> its first affected slice)."""
        removed = self.sharding.parts(gone, state)
        firsts = {k: min(i for i, part in enumerate(piece) if part) for k, piece in enumerate(removed) if any(piece)}
        return self.sharding.parts(left, state), firsts

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        assert isinstance(model, Ensemble)
        state = dict(model.state)
        left, gone, _ = deletion.history(context.manifest, splits, model)
        pieces, firsts = self._split(state, left, gone)
        assert context.manifest is not None
        fresh = again(context.manifest, model)
        fresh.module.to(processes.device())
        stages = self.sharding.stages(fresh, state, context)
        start = weights_of(fresh)
        folder = context.folder / "ensemble"
        with new_folder(folder) as temporary:
            for k, piece in enumerate(pieces):
                source, target = model.folder / f"shard-{k}", temporary / f"shard-{k}"
                if k not in firsts:
                    shutil.copytree(source, target)
                    continue
                first = firsts[k]
                target.mkdir()
                for i in range(1, first + 1):
                    shutil.copy(source / slice_file(i), target)
                before = load_file(source / slice_file(first)) if first else start
                _grow(stages, target, k, piece, before, first)
            every = [self.sharding.steps_of(piece, state) for piece in pieces]
            deletion.record_deletion(
                context, state, len(gone), stages.steps, sum(map(sum, every)), _outlook(pieces, every)
            )
            _conclude(temporary, state, pieces, left, self.sharding.finish, model.trusted)
            if said := (state.get("fair") or {}).get("said"):
                context.notes["exact"]["said"].append(said)
        context.notes["outcome"] = stages.outcome()
        return open_ensemble(folder, trust_code=model.trusted)


def _outlook(pieces: Sequence[Slices], every: Sequence[Sequence[int]]) -> str:
    """Describe the cost of the next request, each example as likely as any other."""
    total = sum(map(sum, every))
    count = sum(len(part) for piece in pieces for part in piece)
    mean = sum(
        len(part) * sum(steps[i:]) for piece, steps in zip(pieces, every, strict=True) for i, part in enumerate(piece)
    ) / max(1, count)
    return (
        f"Every request retrains a part: a further request of one example costs {mean:,.0f} steps on average "
        f"({mean / max(1, total):.0%} of a whole training)."
    )
