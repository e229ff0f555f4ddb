"""Membership by the consistency of an encoder's views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from expunge.attacks.shared.membership import MEANS, membership_result
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Model, Want
from expunge.evaluation.attack import Attack, Found, Target
from expunge.models.passes import passes

CARD = AttackCard(
    "Consistency of views",
    paper="arXiv:2108.11023",
    equation="mean pairwise cosine of augmented views",
    adversary="embeddings; unseen data of the same kind",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("embedding",),
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="standard",
    more=("tpr_1", "tpr_01"),
    passes=5,
    means=MEANS,
)


def view_consistency_auc(*, draws: Annotated[int, Ge(1), Le(100)] = 5) -> Attack:
    """AUC by how alike an example's views are to the encoder: members' were pulled together (Liu et al. 2021).

    The mean cosine between all views of `draws` draws of the encoder's own augmentation. Neither the loss nor its head
    is used: embeddings alone.
    """

    def attack(target: Target) -> Found:
        rows = target.forget, target.splits["holdout"]
        members, others = (consistency(target.model, some, draws) for some in rows)
        return membership_result(members, others, f"{draws} draws of views", rows=rows)

    return attack


def consistency(model: Model, rows: Sequence[Example], draws: int) -> np.ndarray:
    """[N] the mean cosine between the embeddings of all views of each row."""
    views: list[list[np.ndarray]] = [[] for _ in rows]
    for draw in range(draws):
        for indices, out in passes(
            model, [{**row, "draw": draw} for row in rows], Want(frozenset({"view_embeddings"}))
        ):
            for i, value in zip(indices, out.own["view_embeddings"].float().cpu().numpy(), strict=True):
                views[i].append(value)
    return np.array([mean_cosine(np.concatenate(found)) for found in views])


def mean_cosine(x_VD: np.ndarray) -> float:
    """The mean cosine over all pairs of different rows."""
    unit_VD = x_VD / np.maximum(np.linalg.norm(x_VD, axis=1, keepdims=True), 1e-12)
    count = len(unit_VD)
    return float((np.square(unit_VD.sum(0)).sum() - np.square(unit_VD).sum()) / (count * (count - 1)))
