"""True or false."""

from __future__ import annotations

import numpy as np

from expunge.attacks.shared.recovery import answer_probability, require_answers
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.intervals import share
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "True or false",
    paper="arXiv:2506.07795",
    adversary="logits of given options",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    fields={"forget": ("perturbed_answer",)},
    level="standard",
    passes=4,
    means="How often the model rates the true statement above a false one; 0.5 is guessing, and a model that cannot "
    "judge statements guesses whatever it knows.",
)
ASK = "True or false: {q} {a}"


def true_false() -> Attack:
    """The share of examples whose true answer has higher odds of "True" over "False" than a false answer.

    One false answer per example, drawn by seed; a tie counts as half a hit.
    """

    def attack(target: Target) -> Found:
        rows = require_answers(target.forget)
        counts = np.array([bool(row.get("perturbed_answer")) for row in rows])
        if not counts.any():
            raise NotMeasured("no example has a perturbed_answer")
        made = []
        for i in np.flatnonzero(counts).tolist():
            false = rows[i]["perturbed_answer"]
            for said in (rows[i]["answer"], false[target.derive("true_false", i) % len(false)]):
                question = ASK.format(q=rows[i]["question"], a=said)
                made += [{"question": question, "answer": word} for word in ("True", "False")]
        logs = np.log(np.maximum(1e-300, answer_probability(target.model, made)))
        logs = logs.reshape(-1, 2, 2)  # example, statement, word
        truth = logs[..., 0] - logs[..., 1]
        lead = truth[:, 0] - truth[:, 1]
        wins = np.where(np.abs(lead) < 1e-9, 0.5, lead > 0)
        full = np.zeros(len(rows))
        full[counts] = wins
        recovered_N = only(full, counts)
        n = int(counts.sum())
        return Found(Figure(*share(float(wins.sum()), n), n=n, values=recovered_N), recovered_N)

    return attack
