"""The fact as a statement to go on with and as a talk, outside the form of the training data."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import MEANS, answer_probability, figure_of, require_answers
from expunge.core.card import AttackCard, Example
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "Statements and dialogue",
    paper="arXiv:2506.07795",
    adversary="logits; the beginning of the answer",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    level="standard",
    passes=2,
    means=MEANS,
)
FORMS = ("{head}", "Host: {question}\nGuest: {head}")
"""Texts that the model goes on with; {head} is the beginning of the answer."""


def statement() -> Attack:
    """Let the model go on with the answer's first half as plain text, alone and in a talk (after Ye et al. 2025).

    Neither has the template or the words around the question that the model was trained with, so that methods which
    learned to spot that form are passed by. Per-token probability of the answer's second half, in the form that brings
    out most of it. Answers of one word do not count.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        counts_N = np.array([len(str(row["answer"]).split()) > 1 for row in rows])
        if not counts_N.any():
            raise NotMeasured("no answer has more than one word")
        chosen = [row for row, counts in zip(rows, counts_N, strict=True) if counts]
        found = np.stack([answer_probability(target.model, [going_on(row, form) for row in chosen]) for form in FORMS])
        recovered_N = np.zeros(len(rows))
        recovered_N[counts_N] = found.max(axis=0)
        recovered_N = only(recovered_N, counts_N)
        return Found(figure_of(recovered_N, f"best of {len(FORMS)} forms"), recovered_N)

    return attack


def going_on(row: Example, form: str) -> Example:
    """A text whose beginning is given: the first half of the answer's words, in the form."""
    words = str(row["answer"]).split()
    half = len(words) // 2
    head = form.format(question=row["question"], head=" ".join(words[:half]))
    return {"prefix": head, "text": " " + " ".join(words[half:])}
