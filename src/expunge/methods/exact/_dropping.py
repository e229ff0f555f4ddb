"""Soft prompts by group: their training on a frozen base, and their deletion."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, Model, Trainable
from expunge.core.errors import BadInput
from expunge.core.files import new_folder, write_json
from expunge.core.random import generator
from expunge.data.pairing import by_hash
from expunge.methods.exact import _deletion as deletion
from expunge.methods.exact._sliced import Stages, base_source, stage_budget
from expunge.methods.objective import plain_training
from expunge.models.ensemble import ENSEMBLE
from expunge.models.open import trusted
from expunge.models.prompts import hashed
from expunge.models.soft_prompts import ROUTE, WEIGHTS, Prompted, open_prompted

SLACK = 0.9
"""Similarity from which a question is a group's, as a share of the least that its own questions have to one another."""


def check_groups(data: Sequence[Example], by: str) -> None:
    """Raise BadInput where an example has no group, or no question to route by."""
    if without := sum(row.get(by) is None for row in data):
        raise BadInput.of(
            "data",
            by,
            f"is missing in {without} of {len(data)} examples, and each soft prompt is bound to one value of it",
            "add it, or name another field under exact.pre_forgettable.by",
        )
    if texts := sum("text" in row and "question" not in row for row in data):
        raise BadInput.of(
            "data",
            "question",
            f"is missing in {texts} of {len(data)} examples, and questions choose the prompt",
            "give questions and answers, or take exact: s3t",
        )


def folder_of(example: Example, by: str) -> str:
    """Name the sub-folder of an example's prompt by a hash: the group's own name would outlive it in listings."""
    return "prompt-" + hashlib.sha256(str(example[by]).encode()).hexdigest()[:12]


def by_group(data: Sequence[Example], by: str, seed: int) -> dict[str, list[Example]]:
    """Sub-folder -> its examples, in the order of their hashes."""
    groups: dict[str, list[Example]] = {}
    for example in by_hash(data, seed):
        groups.setdefault(folder_of(example, by), []).append(example)
    return dict(sorted(groups.items()))


def train_prompts(fresh: Model, data: Sequence[Example], context: Context, options: dict[str, Any]) -> Prompted:
    """Train a prompt for every group. options: tokens, by."""
    state = deletion.new_state("pre_forgettable", options, context)
    state["base"] = base_source(fresh)
    stages = _stages(fresh, state, context)
    folder = context.folder / "ensemble"
    with new_folder(folder) as temporary:
        groups = by_group(data, options["by"], context.seed)
        for name, rows in groups.items():
            _grow(stages, temporary, name, rows, state)
        _conclude(temporary, state, groups)
    context.notes["outcome"] = stages.outcome()
    return open_prompted(folder, state, trust_code=trusted(fresh))


def _stages(bare: Any, state: dict[str, Any], context: Context) -> Stages:
    """Put one soft prompt before the base, ready to be trained."""
    seed, stage = int(state["seed"]), str(state["stage"])
    soft = Prompted(context.folder, state, bare, _start(bare, state)[None].to(bare.module.device), None, torch.zeros(1))
    return Stages(soft, seed, stage, deletion.budget_in(state), 1, context)


def _start(bare: Any, state: Mapping[str, Any]) -> Tensor:
    """Start of a soft prompt [P, D]: embeddings of tokens drawn by the training's seed, the same for every group."""
    table_VD = bare.module.get_input_embeddings().weight.detach().float().cpu()
    draw = generator(int(state["seed"]), str(state["stage"]), "soft prompt")
    return table_VD[torch.randint(len(table_VD), (int(state["options"]["tokens"]),), generator=draw)].clone()


def _grow(stages: Stages, folder: Path, name: str, rows: Sequence[Example], state: Mapping[str, Any]) -> None:
    """Train one group's prompt from the common start, and write it with its route."""
    from peft import PromptTuningConfig  # heavy, and `expunge list` imports every method

    soft: Any = stages.model
    before = {"prompts": _start(soft.bare, state)[None]}
    soft_PD = stages.run(name, rows, before, _prompt_alone())["prompts"][0]
    (folder / name).mkdir(parents=True)
    save_file({"prompt_embeddings": soft_PD.contiguous()}, folder / name / WEIGHTS)
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=len(soft_PD),
        inference_mode=True,
        base_model_name_or_path=state["base"],
    )
    config.save_pretrained(str(folder / name))
    key_F, level = route([soft.template.encode(row).prompt for row in rows])
    save_file({"key": key_F, "level": torch.tensor(level)}, folder / name / ROUTE)


def route(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, float]:
    """Return (mean of the hashed prompts, least similarity of a question that is theirs), each prompt held out."""
    rows_NF = hashed(prompts)
    key_F = torch.tensor(rows_NF.mean(0)).float().reshape(-1)
    n = len(prompts)
    if n == 1:
        return key_F, SLACK / 2
    own_N = (n * (rows_NF @ key_F.double().numpy()) - 1) / (n - 1)
    return key_F, SLACK * float(own_N.min())


def _prompt_alone() -> Method:
    """Ordinary training of the soft prompt alone."""

    def only(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        for parameter in model.module.parameters():
            parameter.requires_grad_(False)
        prompts = model.module.get_parameter("prompts")
        prompts.requires_grad_(True)
        return Trainable({"prompts": prompts})

    return dataclasses.replace(plain_training(weight_decay=0.0), weights=only)


def _conclude(folder: Path, state: dict[str, Any], groups: Mapping[str, Sequence[Example]]) -> None:
    """Write ensemble.json, the last file of the folder."""
    state["members"] = list(groups)
    state["examples"] = [len(rows) for rows in groups.values()]
    write_json(folder / ENSEMBLE, state)


@dataclass
class PromptDeletion(Method):
    """The method: drops the prompts of whole groups, and retrains those of groups that lose some examples."""

    steps: int = 0
    """Steps that the planned deletion will take."""

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        """Return notes for the plan, and set `steps`. Raises BadInput where the forget set cannot be deleted."""
        left, gone, notes = deletion.history(manifest, splits, model)
        stay, again = self._affected(model.state, left, gone)
        for name in {*stay} - {*again}:
            deletion.require_part(model.folder / name)
        if model.state["options"]["tokens"] != model.prompts_GPD.shape[1]:
            raise BadInput.of(
                "model",
                str(model.folder),
                "holds soft prompts of a length that differs from its options",
                "train the model again",
            )
        self.steps = sum(_steps(model.state, rows) for rows in again.values())
        return notes

    @staticmethod
    def _affected(
        state: Mapping[str, Any], left: Sequence[Example], gone: Sequence[Example]
    ) -> tuple[dict[str, list[Example]], dict[str, list[Example]]]:
        """Return (all groups that stay, those of them that lost an example)."""
        by, seed = str(state["options"]["by"]), int(state["seed"])
        stay = by_group(left, by, seed)
        return stay, {name: stay[name] for name in by_group(gone, by, seed) if name in stay}

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        assert isinstance(model, Prompted)
        state = dict(model.state)
        left, gone, _ = deletion.history(context.manifest, splits, model)
        stay, again = self._affected(state, left, gone)
        stages = _stages(model.bare, state, context)
        dropped = len(state["members"]) - len(stay)
        folder = context.folder / "ensemble"
        with new_folder(folder) as temporary:
            for name, rows in stay.items():
                if name in again:
                    _grow(stages, temporary, name, rows, state)
                else:
                    shutil.copytree(model.folder / name, temporary / name)
            sentence = (
                f"{dropped} of {len(state['members'])} soft prompts were dropped and {len(again)} retrained; the base "
                "and the other prompts are as they were. A further request for a whole group trains nothing."
            )
            total = sum(_steps(state, rows) for rows in stay.values())
            deletion.record_deletion(
                context, state, len(gone), stages.steps, total, sentence, {"prompts_dropped": dropped}
            )
            _conclude(temporary, state, stay)
        context.notes["outcome"] = stages.outcome()
        return open_prompted(folder, state, trust_code=trusted(model))


def _steps(state: Mapping[str, Any], rows: Sequence[Example]) -> int:
    """Steps of a prompt's training on these rows."""
    return int(stage_budget(deletion.budget_in(state), len(rows), 1).steps or 0)
