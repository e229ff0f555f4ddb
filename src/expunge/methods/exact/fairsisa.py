"""SISA whose answers have equal odds in all groups: post-processing of the ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model, want_of
from expunge.core.errors import BadInput
from expunge.methods.exact._odds import fair_rates, gap
from expunge.methods.exact._shards import ShardDeletion, Sharding, train_shards
from expunge.methods.exact._sliced import check_shape
from expunge.models.ensemble import mean_logp
from expunge.models.fairness import Fair
from expunge.models.open import open_ensemble
from expunge.models.passes import passes

GROUPED = {split: {"group"} for split in ("forget", "retain", "holdout", "test")}
CARD = MethodCard(
    "SISA with equalised-odds post-processing",
    paper="arXiv:2312.07420",
    equation="section 4",
    needs={"forget": ()},
    fields=GROUPED,
    capabilities={"shards", "exact:fairsisa", "labels"},
    yields="ensemble",
    means="As exact as SISA, and fair on the training data: true and false positive rates agree between groups. Some "
    "answers are drawn, by the example's own hash. Requires `exact: {fairsisa: ...}` in train.yaml.",
    deterministic=True,
    fidelity="faithful",
    shown="On unseen data the equalised-odds gap falls below four tenths, for six points of accuracy at most.",
)
MAX_CELLS, ROWS_PER_CELL = 20, 100
"""Cells of the mean score, and training examples of each group in a cell: with fewer, rates would fit noise."""


def check(fresh: Model, data: Sequence[Example], *, shards: int, slices: int, way: str) -> None:
    """Require two classes, and both of them in each of two groups or more. Raises BadInput."""
    if strange := next((int(row["label"]) for row in data if int(row["label"]) not in (0, 1)), None):
        raise BadInput.of("exact", "fairsisa", f"handles two classes, and a label is {strange}", "give labels 0 and 1")
    if without := sum(row.get("group") is None for row in data):
        raise BadInput.of(
            "data",
            "group",
            f"is missing in {without} of {len(data)} examples, and fairsisa needs it",
            "add it, or take exact: sisa",
        )
    classes: dict[str, set[int]] = {}
    for row in data:
        classes.setdefault(str(row["group"]), set()).add(int(row["label"]))
    if len(classes) < 2:
        raise BadInput.of("data", "group", "is the same in all examples", "give two groups or more")
    if poor := sorted(group for group, labels in classes.items() if len(labels) < 2):
        raise BadInput.of("data", f"group {poor[0]}", "has examples of one label only", "give it examples of both")
    check_shape(data, slices, shards * slices, "fairsisa")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    shards: Annotated[int, Ge(1), Le(1000)] = 4,
    slices: Annotated[int, Ge(1), Le(1000)] = 4,
    way: Literal["shards", "votes", "scores"] = "scores",
) -> Model:
    """Train as SISA does, then fit the rates of answering 1 that err least at equal odds.

    way: "shards" corrects each shard's class before the mean is taken (the mean may have a gap again), "votes" the
    ensemble's class, "scores" the ensemble's score in cells, of which classes are a special case. Raises BadInput.
    """
    check(fresh, data, shards=shards, slices=slices, way=way)
    options = {"shards": shards, "slices": slices, "way": way}
    return train_shards(fresh, data, context, "fairsisa", options, Sharding(fit))


def fairsisa() -> Method:
    """Delete as SISA does, then refit the fair rates on the remaining data.

    The model must come from `exact: {fairsisa: ...}` in train.yaml, and examples carry a `group`.
    """
    return ShardDeletion(Sharding(fit))


def fit(folder: Path, state: dict[str, Any], data: Sequence[Example], trust_code: bool) -> None:
    """Fit the fair rates on the training data, and add them to the ensemble's state under `fair`."""
    state.pop("fair", None)
    each_MNV, mean_NV = _member_logits(folder, data, trust_code)
    score_N = mean_NV[:, 1].exp().double().numpy()
    label_N = np.array([int(row["label"]) for row in data])
    names = {name: i for i, name in enumerate(sorted({str(row["group"]) for row in data}))}
    group_N = np.array([names[str(row["group"])] for row in data])
    way = state["options"]["way"]
    edges, plain_C = _cells(score_N, len(names)) if way == "scores" else (np.array([]), np.array([0.0, 1.0]))
    plain = Fair(way, [], edges.tolist(), names, int(state["seed"]))
    cell_MN = plain.cells(mean_NV, each_MNV).numpy()
    rates = np.stack([fair_rates(cell_N, label_N, group_N, plain_C, len(names)) for cell_N in cell_MN])
    p_N = np.stack([rate[cell_N, group_N] for rate, cell_N in zip(rates, cell_MN, strict=True)]).mean(0)
    before, after = gap((score_N >= 0.5).astype(float), label_N, group_N), gap(p_N, label_N, group_N)
    state["fair"] = {
        "way": way,
        "rates": rates.tolist(),
        "edges": edges.tolist(),
        "groups": names,
        "seed": int(state["seed"]),
        "said": f"Equalised-odds gap between groups on the training data: {before:.3f} without post-processing, "
        f"{after:.3f} with it (way: {way}).",
    }


def _member_logits(folder: Path, data: Sequence[Example], trust_code: bool) -> tuple[Tensor, Tensor]:
    """Return (each member's logits [M, N, V], the ensemble's mean log-probabilities [N, V])."""
    members = open_ensemble(folder, trust_code=trust_code).members
    want = want_of({"logits"})
    each_MNV = torch.stack(
        [torch.cat([out.logits_BTV[:, -1] for _, out in passes(member, data, want)]) for member in members]
    )
    return each_MNV, mean_logp(list(each_MNV.float().log_softmax(-1)))


def _cells(score_N: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the scores at quantiles; return (inner edges of the cells, each cell's plain answer 0 or 1)."""
    cells = min(MAX_CELLS, max(2, len(score_N) // (ROWS_PER_CELL * groups)))
    edges = np.unique(np.quantile(score_N, np.arange(1, cells) / cells))
    bounds = np.concatenate([[0.0], edges, [1.0]])
    return edges, ((bounds[1:] + bounds[:-1]) / 2 >= 0.5).astype(float)
