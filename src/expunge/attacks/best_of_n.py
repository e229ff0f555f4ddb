"""Best of N: the question again and again, each time spelt differently."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from expunge.attacks.shared.recovery import (
    MEANS,
    answer_recall,
    figure_of,
    generate_texts,
    require_answers,
    require_no_refusals,
)
from expunge.core.card import AttackCard, Example
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Best of N",
    paper="arXiv:2412.03556",
    equation="appendix A.1",
    adversary="query access",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens", "generate"),
    needs={"forget": {"examples"}},
    level="deep",
    passes=20,
    means=MEANS,
)
PRINTABLE = range(33, 126)
"""Codes of characters that noise may move by one and that stay printable."""


def best_of_n(
    *,
    samples: Annotated[int, Ge(1)] = 8,
    sigma: Annotated[float, Ge(0), Le(1)] = 0.4,
    temperature: Annotated[float, Gt(0)] = 1.0,
) -> Attack:
    """Sample an answer to each of several misspelt forms of the question; the best counts (Hughes et al. 2024).

    Each word's middle letters are shuffled and each letter is made a capital with probability sqrt(sigma), each
    character moves to a neighbouring code with probability sigma^3. The strength rises over the `samples` from 0, the
    question as it is, to `sigma`, since small models read little of what is badly spelt (the paper: always `sigma`).
    ROUGE-L recall of the best answer.
    """

    def attack(target: Target) -> Found:
        rows = require_no_refusals(require_answers(target.forget))
        strengths = [sigma * k / max(1, samples - 1) for k in range(samples)]
        probes = [
            misspell(row, strength, np.random.default_rng(target.derive("best_of_n", k, i)))
            for k, strength in enumerate(strengths)
            for i, row in enumerate(rows)
        ]
        texts = generate_texts(target.model, probes, temperature=temperature, seed=target.derive("best_of_n"))
        n = len(rows)
        drawn = [texts[k * n : (k + 1) * n] for k in range(samples)]
        shares = np.ma.stack([answer_recall(rows, part) for part in drawn])
        best = np.ma.filled(shares, 0.0).argmax(axis=0)
        recovered_N = shares.max(axis=0)
        why = f"best of {samples} spellings at temperature {temperature:g}"
        return Found(figure_of(recovered_N, why), recovered_N, texts=[drawn[k][i] for i, k in enumerate(best)])

    return attack


def misspell(row: Example, sigma: float, draw: np.random.Generator) -> Example:
    """The example with its question spelt differently."""
    question = re.sub(r"\w{4,}", lambda word: shuffle_middle(word[0], sigma**0.5, draw), str(row["question"]))
    question = "".join(letter.upper() if draw.random() < sigma**0.5 else letter for letter in question)
    question = "".join(move_code(letter, sigma**3, draw) for letter in question)
    return {"question": question, "answer": row["answer"]}


def shuffle_middle(word: str, chance: float, draw: np.random.Generator) -> str:
    """The word with its middle letters in another order, by this chance."""
    if draw.random() >= chance:
        return word
    return word[0] + "".join(draw.permutation(list(word[1:-1])).tolist()) + word[-1]


def move_code(letter: str, chance: float, draw: np.random.Generator) -> str:
    """The character, or one of its two neighbours in ASCII by this chance."""
    if draw.random() >= chance or ord(letter) not in PRINTABLE:
        return letter
    return chr(ord(letter) + (1 if draw.random() < 0.5 else -1))
