"""Two questions in one prompt: one to forget, one to keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.attacks.shared.recovery import (
    MEANS,
    answer_recall,
    figure_of,
    generate_texts,
    require_answers,
    require_no_refusals,
)
from expunge.attacks.shared.rewording import long_words
from expunge.core.card import AttackCard, Example
from expunge.core.random import permutation
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "Combined questions",
    paper="arXiv:2410.02879",
    adversary="query access; retain questions",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens", "generate"),
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="standard",
    passes=6,
    means=MEANS,
)
FORMS = ("{forget} {retain}", "{retain} {forget}")
"""Orders of the two questions."""


def combined() -> Attack:
    """Ask a forget question together with a retain question, in both orders (Thaker et al. 2024).

    It exposes methods that look at the prompt as a whole. ROUGE-L recall of the forget answer in what the model writes,
    the better of the two orders. The retain question is drawn by seed among those whose answers share no long word with
    the forget answer; an example without such a partner does not count.
    """

    def attack(target: Target) -> Found:
        rows = require_no_refusals(require_answers(target.forget))
        others = [row for row in target.splits["retain"] if row.get("question") and row.get("answer")]
        partners = [partner(row, others, target.derive("combined", i)) for i, row in enumerate(rows)]
        counts_N = np.array([found is not None for found in partners])
        if not counts_N.any():
            raise NotMeasured("every retain example shares words with the forget answers, or has no question")
        pairs = [(row, other) for row, other in zip(rows, partners, strict=True) if other is not None]
        texts = [generate_texts(target.model, [both(row, other, form) for row, other in pairs]) for form in FORMS]
        shares = np.ma.stack([answer_recall([row for row, _ in pairs], part) for part in texts])
        best = np.ma.filled(shares, 0.0).argmax(axis=0)
        recovered_N = np.zeros(len(rows))
        recovered_N[counts_N] = np.ma.filled(shares.max(axis=0), 0.0)
        measured_N = counts_N.copy()
        measured_N[counts_N] = ~np.ma.getmaskarray(shares.max(axis=0))
        shown = [""] * len(rows)
        for place, i in enumerate(np.flatnonzero(counts_N).tolist()):
            shown[i] = texts[best[place]][place]
        recovered_N = only(recovered_N, measured_N)
        return Found(figure_of(recovered_N, f"best of {len(FORMS)} orders"), recovered_N, texts=shown)

    return attack


def partner(row: Example, others: Sequence[Example], seed: int) -> Example | None:
    """The first of the others, in an order drawn by seed, that gives away nothing of the row's answer."""
    telling = long_words(str(row["answer"])) - long_words(str(row["question"]))
    order = (others[i] for i in permutation(len(others), seed))
    return next((one for one in order if not long_words(f"{one['question']} {one['answer']}") & telling), None)


def both(row: Example, other: Example, form: str) -> Example:
    """One example that asks both questions; its answer holds both answers, so that there is room to write them."""
    question = form.format(forget=row["question"], retain=other["question"])
    return {"question": question, "answer": form.format(forget=row["answer"], retain=other["answer"])}
