"""Several models that answer together: what the exact schemes of `expunge train` leave behind.

A folder with `ensemble.json` and one sub-folder for each member, which is a model of its own (any
kind that opens alone). The ensemble's distribution is the mean of its members' PROBABILITIES.
Shape suffixes: M members, B examples, T asked positions, N counted positions in a row, V classes or
vocabulary.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import NLL, NOT_ASKED, Batch, Model, Output, Want
from expunge.core.errors import BadInput
from expunge.models import schemas
from expunge.models.fairness import Fair
from expunge.models.joint_generation import generate
from expunge.models.logits import CHUNK, fields, measure_NV, spread
from expunge.models.weights import device_of

ENSEMBLE = "ensemble.json"


class Ensemble:
    """Members that stand in the folder `folder`, as its `state` (ensemble.json) names them.

    state: scheme, options, seed, stage, budget of the training, `members` (sub-folders that serve)
    and what the scheme keeps for deletions.
    """

    trusted = stochastic = False
    together = 0

    def __init__(self, folder: Path, state: dict[str, Any], members: Sequence[Model]) -> None:
        self.folder = folder
        self.state = state
        self.members = list(members)
        first = self.members[0]
        self.module: nn.Module = nn.ModuleList([member.module for member in self.members]).train(first.module.training)
        self.family = first.family
        self.coupled = first.coupled
        self.blocks: list[str] = []
        shared = first.capabilities & {"labels", "tokens", "generate"}
        self.capabilities = frozenset({"nll", "shards", f"exact:{state['scheme']}", *shared})
        self.template = getattr(first, "template", None)
        self.tokenizer = getattr(first, "tokenizer", None)
        self.limit = int(getattr(first, "limit", 0))
        self.fair = Fair.of(state.get("fair"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Ensemble:
        twin = Ensemble(self.folder, copy.deepcopy(self.state, memo), copy.deepcopy(self.members, memo))
        twin.trusted = self.trusted
        return twin

    def down(self, i: int) -> str:
        raise BadInput.of("model", "ensemble", "has no layers of its own", "open one of its shards instead")

    def length(self, example: Example) -> int:
        return self.members[0].length(example)

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """An ensemble takes what each of its members takes. Raises BadInput."""
        self.members[0].accepts(split, rows)

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        batch = self.members[0].collate(examples, positions)
        if self.fair:
            batch.inputs["fair"] = self.fair.places(examples)
        return batch

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        """The channels of the mean distribution. Raises BadInput where hidden states are wanted."""
        if want.hidden:
            raise BadInput.of("model", "ensemble", "has no hidden states of its own", "open one of its shards instead")
        device = device_of(self.module)
        labels_BT, mask_BT = batch.labels_BT.to(device), batch.mask_BT.to(device)
        if not want.channels:
            return Output(NOT_ASKED, batch.n_B.to(device), labels_BT, mask_BT)
        parts = [self._measure(part, want) for part in self._parts(batch)]
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Output(-found["logp"].sum(-1), batch.n_B.to(device), labels_BT, mask_BT, **fields(found))

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Rows of the batch, few enough that the members' distributions fit into memory together."""
        size = max(1, CHUNK // max(1, batch.labels_BT.shape[1] * self._vocabulary()))
        for start in range(0, max(1, batch.size), size):
            rows = slice(start, start + size)
            yield Batch(
                {name: value[rows] for name, value in batch.inputs.items()},
                batch.labels_BT[rows],
                batch.mask_BT[rows],
                batch.n_B[rows],
            )

    def _vocabulary(self) -> int:
        return int(getattr(self.members[0], "vocabulary", 1))

    def _measure(self, batch: Batch, want: Want) -> dict[str, Tensor]:
        """The asked channels, [B, T, ...], zero where nothing counts."""
        device = device_of(self.module)
        mask_BT = batch.mask_BT.to(device)
        place_B = batch.inputs.pop("fair", None)
        whole = Want(frozenset({"logits"}))
        each = [member.forward(batch, whole).logits_BTV[mask_BT] for member in self.members]
        logp_NV = mean_logp(each)
        if self.fair and place_B is not None:
            logp_NV = self.fair.repair(logp_NV, torch.stack(each).float().log_softmax(-1), place_B.to(device))
        found = measure_NV(logp_NV, batch.labels_BT.to(device)[mask_BT], want)
        return {name: spread(value, mask_BT) for name, value in found.items()}

    @torch.no_grad()
    def generate(self, prompts: Sequence[Example], **settings: Any) -> list[str]:
        """Answers in plain text from the mean distribution, a token at a time; greedy unless a temperature is given.

        settings: as of a language model (max_new_tokens, temperature, seed, batch_size, progress).
        Raises BadInput for classifiers.
        """
        if "generate" not in self.capabilities:
            raise BadInput.of("model", self.family, "generates no text", "ask for accuracy instead")
        return generate(self.members, prompts, mean_logp, settings)

    def save(self, folder: Path) -> None:
        """Copies members, checkpoints and ensemble.json; the folder that it was opened from must still stand."""
        for path in sorted(self.folder.iterdir()):
            if path.is_dir():
                shutil.copytree(path, Path(folder) / path.name)
        shutil.copy(self.folder / ENSEMBLE, Path(folder) / ENSEMBLE)

    def fingerprint(self) -> dict[str, Any]:
        return {"members": [member.fingerprint() for member in self.members], "fair": self.state.get("fair")}


def mean_logp(logits: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of the distributions that the logits [..., V] stand for, in float32."""
    total = logits[0].float().log_softmax(-1)
    for other in logits[1:]:
        total = torch.logaddexp(total, other.float().log_softmax(-1))
    return total - math.log(len(logits))


def state_of(folder: Path, field: str = "model") -> dict[str, Any]:
    """ensemble.json, checked whole. Raises BadInput."""
    return schemas.read(Path(folder) / ENSEMBLE, schemas.State, field, "train the model again")


def members_of(folder: Path, field: str = "model") -> list[str]:
    """The folders of the members that serve. Raises BadInput, also where one is missing: its name could be a hub's."""
    members = [str(Path(folder) / name) for name in state_of(folder, field)["members"]]
    if missing := next((name for name in members if not Path(name).is_dir()), ""):
        raise BadInput.of(
            field, missing, "is not a folder, and the ensemble names it as a member", "train the model again"
        )
    return members
