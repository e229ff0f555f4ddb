"""A keyword of the forget set among the wrong options of a retain question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.attacks.shared.recovery import answer_probability
from expunge.attacks.shared.rewording import long_words
from expunge.core.card import AttackCard, Example
from expunge.core.random import permutation
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.intervals import share
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "Keywords as distractors",
    paper="arXiv:2410.02879",
    adversary="logits of given options; keywords of the forget set",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="standard",
    more=("plain",),
    passes=4,
    means="How often the model still prefers the true answer to a retain question when a keyword of the forget set is "
    "among the options; `_plain`: without the keyword. A drop that gold does not show means that the method reacts to "
    "words and not to knowledge. It says nothing of what is left of the forget set.",
)
ASK = "{q} Options: {options}."


def distractors() -> Attack:
    """Let the model choose between a retain answer and a wrong one, with a forget keyword among the options.

    After Thaker et al. (2024), who put one keyword of the forget set in the place of a wrong option. The prompt lists
    three options in an order drawn by seed: the answer, another retain example's answer and, as the third, the keyword
    (the `subject` of a forget example, else its answer); for `plain` the third is a further retain answer. The model
    prefers what has the higher probability per token, the answer or the wrong answer that is in both prompts.
    """

    def attack(target: Target) -> Found:
        rows = [row for row in target.splits["retain"] if row.get("question") and row.get("answer")]
        words = keywords(target.forget)
        made = [pair for i, row in enumerate(rows) if (pair := prompts(row, rows, words, target.derive("options", i)))]
        if not made:
            raise NotMeasured("too few retain examples have a question and an answer of their own")
        probes = [probe for pair in made for probe in pair]
        lead = np.diff(answer_probability(target.model, probes).reshape(len(made), 2, 2), axis=2)[..., 0]
        right = (lead < 0).sum(axis=0)
        plain, keyword = (Figure(*share(float(hits), len(made)), n=len(made)) for hits in right)
        return Found(keyword, more={"plain": ("share", "higher", plain)})

    return attack


def keywords(rows: Sequence[Example]) -> list[str]:
    """The subjects of the forget set, else its answers. Raises NotMeasured where there are neither."""
    found = {str(row.get("subject") or row.get("answer") or "") for row in rows} - {""}
    if not found:
        raise NotMeasured("no forget example has a subject or an answer")
    return sorted(found)


def prompts(row: Example, rows: Sequence[Example], words: Sequence[str], seed: int) -> list[Example]:
    """[4] the answer and the wrong answer after the plain options, and after those with the keyword; [] where no two
    other retain answers differ from the answer."""
    answer = str(row["answer"])
    order = permutation(len(rows), seed)
    others = list(dict.fromkeys(str(rows[i]["answer"]) for i in order if str(rows[i]["answer"]) != answer))
    foreign = [word for word in words if not long_words(word) & long_words(str(row["question"]))]
    if len(others) < 2 or not foreign:
        return []
    wrong, third = others[:2]
    keyword = foreign[permutation(len(foreign), seed)[0]]
    places = permutation(3, seed)
    asked = [
        ASK.format(q=row["question"], options="; ".join([(answer, wrong, last)[place] for place in places]))
        for last in (third, keyword)
    ]
    return [{"question": question, "answer": text} for question in asked for text in (answer, wrong)]
