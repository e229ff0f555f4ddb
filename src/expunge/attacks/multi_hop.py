"""The fact asked for indirectly: by another name, or over several steps."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import MEANS, answer_probability, figure_of, require_answers
from expunge.attacks.shared.rewording import long_words, probes_of
from expunge.core.card import AttackCard, Example
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "Aliases and multi-hop questions",
    paper="arXiv:2410.13274",
    adversary="logits; aliases of the subject",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    level="standard",
    passes=3,
    means=MEANS,
)


def multi_hop() -> Attack:
    """Ask for the same answer by an alias of the subject or over a chain of facts.

    Probes come from the examples alone: each of `aliases` in place of `subject` ("the author of ..."), and each
    `multi_hop_question`. Per-token probability of the answer, at the probe that brings out most. An alias is left out
    if it contains words of the answer that the question does not.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        made = [probes(row) for row in rows]
        counts_N = np.array([bool(found) for found in made])
        if not counts_N.any():
            raise NotMeasured("no example has aliases of a subject that its question names, or a multi_hop_question")
        values = answer_probability(target.model, [probe for found in made for probe in found])
        parts = np.split(values, np.cumsum([len(found) for found in made])[:-1])
        recovered_N = only([float(part.max()) if len(part) else 0.0 for part in parts], counts_N)
        why = f"{len(values)} probes of {int(counts_N.sum())} examples"
        return Found(figure_of(recovered_N, why), recovered_N)

    return attack


def probes(row: Example) -> list[Example]:
    """The example's question with other names and over several steps."""
    question, answer, entity = str(row["question"]), str(row["answer"]), str(row.get("subject") or "")
    questions = []
    if entity and entity in question:
        telling = long_words(answer) - long_words(question) - long_words(entity)
        questions = [
            question.replace(entity, str(alias))
            for alias in row.get("aliases") or []
            if not long_words(str(alias)) & telling
        ]
    named = [{"question": text, "answer": answer} for text in questions]
    return [probe for probe in [*probes_of(row, "multi_hop_question"), *named] if probe["question"] != question]
