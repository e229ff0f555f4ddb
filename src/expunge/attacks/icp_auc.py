"""In-context probing: membership by what context still teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.attacks._asking import after_turns
from expunge.attacks._membership import MEANS, compare, compared
from expunge.attacks._recovery import answer_probability, told, with_answers
from expunge.attacks.neighbour_auc import near
from expunge.core.card import AttackCard, Example
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "In-context probing",
    paper="In-context probing for membership inference (ICP-MIA)",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("tokens",),
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("tpr_1", "tpr_01", "reference"),
    passes=14,
    means=MEANS,
)


def icp_auc(*, shots: Annotated[int, Ge(1)] = 2) -> Attack:
    """AUC by a small optimisation gap: how little the loss falls when like examples stand in front.

    What was trained on has nothing left to gain. In front are perturbed copies of the answer; `reference` is the same with
    the nearest holdout examples by TF-IDF.
    """

    def attack(target: Target) -> Found:
        forget, holdout = (with_answers(target.splits[name]) for name in ("forget", "holdout"))
        rows = [*forget, *holdout]
        simply = np.log(np.maximum(1e-300, np.concatenate([told(target, "forget"), told(target, "holdout")])))

        def led(pool: Sequence[Sequence[Example]]) -> tuple[np.ndarray, np.ndarray]:
            """(forget's, holdout's) scores: minus the fall of the loss."""
            made = [after_turns(target.model, turns, row) for turns, row in zip(pool, rows, strict=True)]
            scores = simply - np.log(np.maximum(1e-300, answer_probability(target.model, made)))
            return scores[: len(forget)], scores[len(forget) :]

        found = compared(*led(_copies(target, rows, shots)), f"{shots} perturbed copies in front")
        other = compare(*led(_nearest(rows, holdout, shots)), f"{shots} unseen examples in front")
        return replace(found, more={**found.more, "reference": ("auc", "gold", other)})

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
