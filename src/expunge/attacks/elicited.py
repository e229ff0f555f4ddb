"""Probes built from facts that the model knew before: from one hop to several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt

from expunge.attacks.shared.recovery import MEANS, answer_probability, figure_of, require_answers
from expunge.attacks.shared.rewording import long_words
from expunge.core.card import AttackCard, Example
from expunge.core.random import permutation
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured

CARD = AttackCard(
    "Elicited multi-hop probes",
    paper="arXiv:2603.11266",
    adversary="logits; facts that the model knew before the change",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    fields={"forget": ("subject",)},
    level="deep",
    passes=9,
    means=MEANS,
)
DESCRIPTIONS = ("the one of whom it is said: {fact}", "the person about whom this holds: {fact}")


def elicited(*, known: Annotated[float, Gt(0), Lt(1)] = 0.5, hops: Annotated[int, Ge(1)] = 3) -> Attack:
    """Ask by way of other facts that the model knew: by name, over one fact, over two (after Shah et al. 2026).

    Elicited are the examples whose answers had a per-token probability above `known` before the change. Each is asked
    for with its `subject` named in other words (hop 1), and with the name replaced by what other elicited examples of
    the same subject state (hop 2: one fact, hop 3: two), with the name removed from them. Facts that contain words of
    the answer are left out. The probes are templates, plainer than those that the paper lets a language model write,
    and a small model may not follow them. Per-token probability of the answer, at the probe that brings out most;
    `curve` has it by hop.
    """

    def attack(target: Target) -> Found:
        if "before" not in target.plain:
            raise NotMeasured("no model before the change was given: what it knew cannot be elicited")
        rows = require_answers(target.forget)
        knew_N = np.asarray(target.plain["before"]) > known
        made = [ladder(row, _facts(i, rows, knew_N, target), hops) if knew_N[i] else [] for i, row in enumerate(rows)]
        if not any(made):
            raise NotMeasured("the model before the change gave no answer whose question names a subject")
        flat = [(i, hop, probe) for i, found in enumerate(made) for hop, probe in found]
        values = answer_probability(target.model, [probe for _, _, probe in flat])
        best_N, reached = np.zeros(len(rows)), np.zeros(len(rows), dtype=bool)
        for (i, _, _), value in zip(flat, values, strict=True):
            best_N[i], reached[i] = max(best_N[i], value), True
        by_hop = {hop: [v for (_, h, _), v in zip(flat, values, strict=True) if h == hop] for hop in range(1, hops + 1)}
        curve = [{"x": hop, "value": float(np.mean(found))} for hop, found in by_hop.items() if found]
        recovered_N = only(best_N, reached)
        longest = max(hop for hop, found in by_hop.items() if found)
        known_before = f"{int(knew_N.sum())} of {len(rows)} answers were known before"
        why = f"{len(flat)} probes over 1 to {longest} hops; {known_before}"
        return Found(figure_of(recovered_N, why), recovered_N, curve=curve)

    return attack


def _facts(i: int, rows: Sequence[Example], knew_N: np.ndarray, target: Target) -> list[str]:
    """The answers of other elicited examples with the same subject, in an order drawn by seed."""
    order = permutation(len(rows), target.derive("elicited", i))
    same = [j for j in order if j != i and knew_N[j] and rows[j].get("subject") == rows[i].get("subject")]
    return [str(rows[j]["answer"]) for j in same]


def ladder(row: Example, facts: Sequence[str], hops: int) -> list[tuple[int, Example]]:
    """(hop, probe), from the subject in other words to chains of facts; empty where the question does not name it."""
    question, answer, entity = str(row["question"]), str(row["answer"]), str(row.get("subject") or "")
    if not entity or entity not in question:
        return []
    telling = long_words(answer) - long_words(question) - long_words(entity)
    usable = [text for fact in facts if not long_words(text := nameless(fact, entity)) & telling]
    found = [(1, f"This is about {entity}. {question}")]
    for hop in range(2, hops + 1):
        chain = usable[: hop - 1]
        if len(chain) == hop - 1:
            found += [(hop, question.replace(entity, form.format(fact=" And: ".join(chain)))) for form in DESCRIPTIONS]
    return [(hop, {"question": text, "answer": answer}) for hop, text in found]


def nameless(fact: str, entity: str) -> str:
    """The fact without the subject's name, whole or in parts."""
    parts = sorted({entity, *(part for part in entity.split() if len(part) > 2)}, key=len, reverse=True)
    return re.sub(r"\b(" + "|".join(map(re.escape, parts)) + r")\b", "they", fact).strip()
