"""In-context probing: membership by what context still adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.attacks.neighbour_auc import replace_words
from expunge.attacks.shared.membership import MEANS, compare, membership_result
from expunge.attacks.shared.recovery import answer_probability, plain_probability, require_answers
from expunge.attacks.shared.rewording import after_turns
from expunge.core.card import AttackCard, Example
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "In-context probing",
    paper="In-context probing for membership inference (ICP-MIA)",
    adversary="logits; unseen data of the same kind",
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
    """AUC by a small optimisation gap: how little the loss falls when similar examples come first.

    An example that was trained on has nothing left to gain. The context holds perturbed copies of the answer; for
    `reference` it holds the nearest holdout examples by TF-IDF.
    """

    def attack(target: Target) -> Found:
        forget, holdout = (require_answers(target.splits[name]) for name in ("forget", "holdout"))
        rows = [*forget, *holdout]
        simply = np.log(
            np.maximum(
                1e-300, np.concatenate([plain_probability(target, "forget"), plain_probability(target, "holdout")])
            )
        )

        def scores_after(pool: Sequence[Sequence[Example]]) -> tuple[np.ndarray, np.ndarray]:
            """(forget's, holdout's) scores: minus the fall of the loss."""
            made = [after_turns(target.model, turns, row) for turns, row in zip(pool, rows, strict=True)]
            scores = simply - np.log(np.maximum(1e-300, answer_probability(target.model, made)))
            return scores[: len(forget)], scores[len(forget) :]

        sides = forget, holdout
        why = f"{shots} perturbed copies in front"
        found = membership_result(*scores_after(_copies(target, rows, shots)), why, rows=sides)
        other = compare(*scores_after(_nearest(rows, holdout, shots)), f"{shots} unseen examples in front", rows=sides)
        return replace(found, more={**found.more, "reference": ("auc", "gold", other)})

    return attack


def _copies(target: Target, rows: Sequence[Example], shots: int) -> list[list[Example]]:
    words = sorted({word for row in rows for word in str(row["answer"]).split()})
    return [
        [replace_words(row, words, 0.3, target.derive("icp", i, j)) for j in range(shots)] for i, row in enumerate(rows)
    ]


def _nearest(rows: Sequence[Example], pool: Sequence[Example], shots: int) -> list[list[Example]]:
    """The pool's examples that share most words with each row, without the row itself."""
    # scikit-learn takes a second to import, and every plan imports this file.
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [f"{row['question']} {row['answer']}" for row in [*rows, *pool]]
    vectors = TfidfVectorizer().fit_transform(texts)
    like = (vectors[: len(rows)] @ vectors[len(rows) :].T).toarray()
    return [
        [pool[j] for j in np.argsort(-line) if pool[j] is not row][:shots] for row, line in zip(rows, like, strict=True)
    ]
