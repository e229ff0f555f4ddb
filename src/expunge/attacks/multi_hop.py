"""The fact asked for over a detour: by another name, or over several steps."""

from __future__ import annotations

import re

import numpy as np

from expunge.attacks._asking import asked_by
from expunge.attacks._recovery import MEANS, answer_probability, figure_of, with_answers
from expunge.core.card import AttackCard, Example
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "Aliases and multi-hop questions",
    paper="arXiv:2410.13274",
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

    Probes come from the examples alone: each of `aliases` in the place of `subject` ("the author of ..."), and each
    `multi_hop_question`. Probability of the answer, a token, at the probe that brings out most. An alias that says words
    of the answer which the question did not say is left out.
    """

    def attack(target: Target) -> Found:
        rows = with_answers(target.forget)
        made = [probes(row) for row in rows]
        counts_N = np.array([bool(found) for found in made])
        if not counts_N.any():
            raise NotMeasured(
                "no example carries aliases of a subject that its question names, or a multi_hop_question"
            )
        values = answer_probability(target.model, [probe for found in made for probe in found])
        parts = np.split(values, np.cumsum([len(found) for found in made])[:-1])
        recovered_N = only([float(part.max()) if len(part) else 0.0 for part in parts], counts_N)
        why = f"{len(values)} probes of {int(counts_N.sum())} examples"
        return Found(figure_of(recovered_N, why), recovered_N)

    return attack


def probes(row: Example) -> list[Example]:
    """The example's question by other names and over other ways."""
    question, answer, model = str(row["question"]), str(row["answer"]), str(row.get("subject") or "")
    found = []
    if model and model in question:
        told = _words(answer) - _words(question) - _words(model)
        found = [
            question.replace(model, str(alias)) for alias in row.get("aliases") or [] if not _words(str(alias)) & told
        ]
    named = [{"question": q, "answer": answer} for q in found]
    return [probe for probe in [*asked_by(row, "multi_hop_question"), *named] if probe["question"] != question]


def _words(text: str) -> set[str]:
    """Its words of four letters and more, in lower case."""
    return set(re.findall(r"\w{4,}", text.lower()))
