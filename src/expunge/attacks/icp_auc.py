"""In-context probing: membership by what context still teaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from expunge.attacking import Attack, Found, Target
from expunge.attacks._asking import after_turns
from expunge.attacks._membership import MEANS, compared
from expunge.attacks._recovery import asked, told, with_answers
from expunge.attacks.neighbour_auc import near
from expunge.core.card import Card, Example

CARD = Card(
    "In-context probing", paper="In-context probing for membership inference (ICP-MIA)", side="privacy", better="gold",
    unit="auc", capabilities=("tokens",), needs={"forget": {"examples"}, "holdout": {"examples"}}, level="deep", more=("tpr_1", "tpr_01"),
    passes=9, means=MEANS,
)  # fmt: skip


def icp_auc(*, context: Literal["reference", "self"] = "self", shots: Annotated[int, Ge(1)] = 2) -> Attack:
    """AUC by a small optimisation gap: how little the loss falls when like examples stand in front.

    What was trained on has nothing left to gain. `self` puts perturbed copies of the answer in
    front, `reference` the nearest holdout examples by TF-IDF.
    """

    def attack(target: Target) -> Found:
        forget, holdout = (with_answers(target.splits[name]) for name in ("forget", "holdout"))
        rows = [*forget, *holdout]
        pool = _nearest(rows, holdout, shots) if context == "reference" else _copies(target, rows, shots)
        made = [after_turns(target.subject, turns, row) for turns, row in zip(pool, rows, strict=True)]
        simply = np.concatenate([told(target, "forget"), told(target, "holdout")])
        plain, led = (np.log(np.maximum(1e-300, p)) for p in (simply, asked(target.subject, made)))
        scores = plain - led  # minus the fall of the loss
        return compared(scores[: len(forget)], scores[len(forget) :], f"{context}, {shots} in front")

    return attack


def _copies(target: Target, rows: Sequence[Example], shots: int) -> list[list[Example]]:
    words = sorted({word for row in rows for word in str(row["answer"]).split()})
    return [[near(row, words, 0.3, target.derive("icp", i, j)) for j in range(shots)] for i, row in enumerate(rows)]


def _nearest(rows: Sequence[Example], pool: Sequence[Example], shots: int) -> list[list[Example]]:
    """The pool's examples that share most words with each row, itself left out."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [f"{row['question']} {row['answer']}" for row in [*rows, *pool]]
    vectors = TfidfVectorizer().fit_transform(texts)
    like = (vectors[: len(rows)] @ vectors[len(rows) :].T).toarray()
    return [
        [pool[j] for j in np.argsort(-line) if pool[j] is not row][:shots] for row, line in zip(rows, like, strict=True)
    ]
