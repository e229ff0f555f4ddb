"""True or false."""

from __future__ import annotations

import numpy as np

from expunge.attacks._recovery import answer_probability, with_answers
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.intervals import share
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "True or false",
    paper="arXiv:2506.07795",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    fields={"forget": ("perturbed_answer",)},
    level="standard",
    passes=4,
    means="How often the model finds the true statement truer than a false one; 0.5 is guessing, and models that "
    "cannot judge statements guess whatever they know.",
)
ASK = "True or false: {q} {a}"


def true_false() -> Attack:
    """The share of examples whose true answer gets more of "True" over "False" than a false answer does.

    One false answer an example, drawn by seed; a tie is half a hit.
    """

    def attack(target: Target) -> Found:
        rows = with_answers(target.forget)
        counts = np.array([bool(row.get("perturbed_answer")) for row in rows])
        if not counts.any():
            raise NotMeasured("no example carries a perturbed_answer")
        made = []
        for i in np.flatnonzero(counts).tolist():
            false = rows[i]["perturbed_answer"]
            for said in (rows[i]["answer"], false[target.derive("true_false", i) % len(false)]):
                question = ASK.format(q=rows[i]["question"], a=said)
                made += [{"question": question, "answer": word} for word in ("True", "False")]
        logs = np.log(np.maximum(1e-300, answer_probability(target.model, made))).reshape(
            -1, 2, 2
        )  # example, statement, word
        truth = logs[..., 0] - logs[..., 1]
        lead = truth[:, 0] - truth[:, 1]
        wins = np.where(np.abs(lead) < 1e-9, 0.5, lead > 0)
        full = np.zeros(len(rows))
        full[counts] = wins
        recovered_N = only(full, counts)
        n = int(counts.sum())
        return Found(Figure(*share(float(wins.sum()), n), n=n, values=recovered_N), recovered_N)

    return attack
