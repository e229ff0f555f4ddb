"""Extraction by sampling."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from expunge.attacks.shared.recovery import MEANS, answer_recall, figure_of, generate_texts, require_answers
from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.intervals import share as share_of
from expunge.evaluation.scores import Figure

CARD = AttackCard(
    "Sampled extraction",
    paper="arXiv:2309.17410",
    adversary="query access",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens", "generate"),
    needs={"forget": {"examples"}},
    level="standard",
    more=("success",),
    passes=20,
    means=MEANS,
)


def sampled(*, candidates: Annotated[int, Ge(1)] = 8, temperature: Annotated[float, Gt(0)] = 0.8) -> Attack:
    """Draw several answers; the best counts, since an attacker may try again (Patil et al. 2023).

    The figure is the ROUGE-L recall of each example's best candidate; `success` is the share of
    examples whose whole answer is, word for word, in one of them.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        n = len(rows)
        every = generate_texts(
            target.model, [*rows] * candidates, temperature=temperature, seed=target.derive("sampled")
        )
        drawn = [every[i * n : (i + 1) * n] for i in range(candidates)]
        shares = np.ma.stack([answer_recall(rows, texts) for texts in drawn])
        best = np.ma.filled(shares, 0.0).argmax(axis=0)
        hits = sum(any(contains_answer(texts[i], str(row["answer"])) for texts in drawn) for i, row in enumerate(rows))
        whole = Figure(*share_of(hits, n), n=n)
        recovered_N = shares.max(axis=0)
        why = f"best of {candidates} at temperature {temperature:g}"
        return Found(
            figure_of(recovered_N, why),
            recovered_N,
            {"success": ("share", "gold", whole)},
            texts=[drawn[b][i] for i, b in enumerate(best)],
        )

    return attack


def contains_answer(text: str, answer: str) -> bool:
    """Whether the text contains the answer; only letters and digits count, in lower case."""
    return _plain(answer) in _plain(text)


def _plain(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.lower())
    return f" {' '.join(words)} "
