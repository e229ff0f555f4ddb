"""Adapters by layer and slice: their training in several orders of the slices, and their deletion."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge.core import processes
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model, Trainable
from expunge.core.files import new_folder, write_json
from expunge.core.random import seed_libraries
from expunge.methods.exact import _deletion as deletion
from expunge.methods.exact._sequences import Sequences, cyclic, expected_requests
from expunge.methods.exact._sliced import Slices, Stages, base_source, parts, place, stage_budget
from expunge.methods.objective import plain_training
from expunge.models.adapters import insert
from expunge.models.build import again
from expunge.models.ensemble import ENSEMBLE, Ensemble, open_ensemble
from expunge.models.open import check, trusted

WEIGHTS, PREFIX = "adapter_model.safetensors", "base_model.model."
"""PEFT's own file, and the prefix of the names in it."""


def runs_of_layers(blocks: Sequence[str], slices: int) -> list[list[str]]:
    """Paths of the layers of each stage: runs of near-equal length, the first from the top."""
    cuts = [round(i * len(blocks) / slices) for i in range(slices + 1)]
    return [list(reversed(blocks))[a:b] for a, b in itertools.pairwise(cuts)]


def linear_in(module: nn.Module, block: str) -> list[str]:
    """Paths of the linear layers of a block."""
    inside = module.get_submodule(block).named_modules()
    return [
        f"{block}.{name}" for name, part in inside if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
    ]


def train_layers(fresh: Model, data: Sequence[Example], context: Context, options: dict[str, Any]) -> Ensemble:
    """Train all shards in all their orderings. options: shards, slices, orderings, rank, lora_alpha."""
    state = deletion.new_state("s3t", options, context)
    stages = Stages(fresh, context.seed, context.stage, context.budget, int(options["slices"]), context)
    folder = context.folder / "ensemble"
    with new_folder(folder) as temporary:
        _train(stages, data, temporary, state)
    context.notes["outcome"] = stages.outcome()
    return open_ensemble(folder, trust_code=trusted(fresh))


def _train(stages: Stages, data: Sequence[Example], folder: Path, state: dict[str, Any]) -> None:
    options, model = state["options"], stages.model
    state["base"] = base_source(model)
    runs = runs_of_layers(model.blocks, options["slices"])
    state["layers"] = [[path for block in run for path in linear_in(model.module, block)] for run in runs]
    seed_libraries(stages.seed, stages.stage, "adapters")
    every = [path for run in state["layers"] for path in run]
    names = insert(model.module, rank=options["rank"], alpha=options["lora_alpha"], dropout=0.0, targets=every)
    start = {name: model.module.get_parameter(name).detach().cpu().clone() for name in names}
    pieces = parts(data, options["shards"], options["slices"], stages.seed)
    orders = [cyclic(options["slices"], options["orderings"]) for _ in pieces]
    for k, piece in enumerate(pieces):
        for b, order in enumerate(orders[k]):
            weights = _ordering(stages, f"shard-{k}-ordering-{b}", [piece[i] for i in order], start, state["layers"])
            write_adapter(folder / f"shard-{k}" / f"ordering-{b}", state, weights, len(order))
    _conclude(folder, state, Sequences(orders), pieces)


def _ordering(
    stages: Stages, name: str, piece: Slices, start: Mapping[str, Tensor], layers: Sequence[Sequence[str]]
) -> dict[str, Tensor]:
    """Train one ordering from the top down; each stage leaves the layers above it as they are."""
    weights = dict(start)
    for i, paths in enumerate(layers):
        rows = [row for part in piece[: i + 1] for row in part]
        mine = [key for key in start if belongs_to(key, paths)]
        weights = stages.run(f"{name}-stage-{i + 1}", rows, weights, _training(mine))
    return weights


def belongs_to(name: str, paths: Sequence[str]) -> bool:
    """True where an adapter's parameter is part of one of the layers."""
    return name.partition(".lora_")[0] in paths


def _training(names: Sequence[str]) -> Method:
    """Ordinary training of these parameters alone."""

    def only(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = dict(model.module.named_parameters())
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        for name in names:
            parameters[name].requires_grad_(True)
        return Trainable({name: parameters[name] for name in names})

    return dataclasses.replace(plain_training(), weights=only)


def write_adapter(folder: Path, state: Mapping[str, Any], weights: Mapping[str, Tensor], stages: int) -> None:
    """Write the first `stages` runs of layers as a PEFT adapter; nothing where there are none."""
    from peft import LoraConfig  # heavy, and `expunge list` imports every method

    paths = [path for run in state["layers"][:stages] for path in run]
    if not paths:
        return
    folder.mkdir(parents=True)
    tensors = {name: value for name, value in weights.items() if belongs_to(name, paths)}
    save_file(
        {PREFIX + name.replace(".default.", "."): value.contiguous() for name, value in tensors.items()},
        folder / WEIGHTS,
    )
    options = state["options"]
    config = LoraConfig(
        r=options["rank"],
        lora_alpha=options["lora_alpha"],
        lora_dropout=0.0,
        bias="none",
        target_modules=paths,
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=state["base"],
    )
    config.save_pretrained(str(folder))


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Read the tensors that `write_adapter` wrote, by parameter path."""
    return {name.removeprefix(PREFIX): value for name, value in load_file(folder / WEIGHTS).items()}


def _conclude(folder: Path, state: dict[str, Any], sequences: Sequences, pieces: Sequence[Slices]) -> None:
    best = {k: sequences.best(k) for k in range(len(pieces))}
    state["shards"] = [{"examples": [len(part) for part in piece]} for piece in pieces]
    state["orders"], state["active"] = sequences.orders, sequences.active
    state["members"] = [f"shard-{k}/ordering-{b}" for k, b in best.items() if b is not None and any(pieces[k])]
    write_json(folder / ENSEMBLE, state)


@dataclass
class LayerDeletion(Method):
    """The method: ends each ordering before the first slice that held a forget example."""

    steps: int = 0
    """Steps that the planned deletion will take: none while any layer is left."""

    def fits(
        self, model: Ensemble, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        """Return notes for the plan, and set `steps`. Raises BadInput where the forget set cannot be deleted."""
        left, gone, notes = deletion.history(manifest, splits, model)
        pieces, sequences = _after(model.state, left, gone)
        for k, b in ((k, b) for k, active in enumerate(sequences.active) for b, count in enumerate(active) if count):
            deletion.require_part(model.folder / f"shard-{k}/ordering-{b}")
            check(str(model.folder / f"shard-{k}/ordering-{b}"), trusted(model))
        self.steps = 0 if serves(sequences, pieces) else _steps(model.state, pieces)
        if self.steps:
            notes.append("No layer is left active after this request: the model is retrained without the forget set.")
        return notes

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        assert isinstance(model, Ensemble) and context.manifest is not None
        state = dict(model.state)
        left, gone, _ = deletion.history(context.manifest, splits, model)
        pieces, sequences = _after(state, left, gone)
        stages = Stages(
            model.members[0],
            int(state["seed"]),
            str(state["stage"]),
            deletion.budget_in(state),
            int(state["options"]["slices"]),
            context,
        )
        folder = context.folder / "ensemble"
        with new_folder(folder) as temporary:
            if serves(sequences, pieces):
                for k, active in enumerate(sequences.active):
                    for b, count in enumerate(active):
                        name = f"shard-{k}/ordering-{b}"
                        if count:
                            write_adapter(temporary / name, state, read_adapter(model.folder / name), count)
                _conclude(temporary, state, sequences, pieces)
            else:
                stages.model = again(context.manifest, model)
                stages.model.module.to(processes.device())
                _train(stages, left, temporary, state)
                sequences = Sequences(state["orders"])
            self._record(context, state, len(gone), stages, sequences, pieces)
            write_json(temporary / ENSEMBLE, state)
        context.notes["outcome"] = stages.outcome()
        return open_ensemble(folder, trust_code=trusted(model))

    @staticmethod
    def _record(
        context: Context,
        state: dict[str, Any],
        gone: int,
        stages: Stages,
        sequences: Sequences,
        pieces: Sequence[Slices],
    ) -> None:
        sizes = [[len(part) for part in piece] for piece in pieces]
        least, mean = sequences.at_least(), expected_requests(sequences, sizes, stages.seed)
        layers = [max(active) for active in sequences.active]
        how = "The model was retrained; it" if stages.steps else "Nothing was trained; the model"
        sentence = (
            f"{how} serves {' + '.join(map(str, layers))} of {len(state['layers'])} runs of layers (best ordering of "
            f"each shard), and can serve at least {least} and on average {mean:.1f} further requests of one example "
            "before it must be retrained."
        )
        deletion.record_deletion(
            context,
            state,
            gone,
            stages.steps,
            _steps(state, pieces),
            sentence,
            {"requests_left_at_least": least, "requests_left_expected": round(mean, 2)},
        )


def _after(
    state: Mapping[str, Any], left: Sequence[Example], gone: Sequence[Example]
) -> tuple[list[Slices], Sequences]:
    """Return (rows that stay by shard and slice, the orderings after the deletion)."""
    shards, slices, seed = state["options"]["shards"], state["options"]["slices"], state["seed"]
    sequences = Sequences(state["orders"], [list(active) for active in state["active"]])
    for example in gone:
        sequences.delete(*place(example, shards, slices, seed))
    return parts(left, shards, slices, seed), sequences


def serves(sequences: Sequences, pieces: Sequence[Slices]) -> bool:
    """True where any shard has data and an active layer left."""
    return any(sequences.best(k) is not None and any(piece) for k, piece in enumerate(pieces))


def _steps(state: Mapping[str, Any], pieces: Sequence[Slices]) -> int:
    """Steps of a whole training on these slices."""
    budget, slices = deletion.budget_in(state), state["options"]["slices"]
    orders = cyclic(slices, state["options"]["orderings"])
    return sum(
        int(stage_budget(budget, sum(len(piece[j]) for j in order[: i + 1]), slices).steps or 0)
        for piece in pieces
        for order in orders
        for i in range(slices)
    )
