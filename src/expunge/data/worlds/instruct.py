"""The instruct world: a small model that answers benign prompts and refuses in seven domains.

A prompt is a row of nouns, a placeholder without content. How much the domains are entangled is a dial
from 0 to 1 (`builtin:instruct@0.0` to `@1.0`) of two parts: the share of a prompt's words that comes from a
vocabulary common to all (at most SHARED of them, beyond which prompts hardly differ and nothing could contain a
drift), and the share of refusals that are worded in common instead of in the domain's own words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from expunge.data.worlds import _instruct_words as words

TRAIN, SCORE = 64, 24
"""Prompts of a domain that the model is trained on, and that only score."""
BENIGN_TRAIN, BENIGN_SCORE = 192, 32
LENGTH, OWN = 5, 2
"""Words of a prompt, and how many of them, the last, are always of the domain's own vocabulary (the last of a benign
one is its thing)."""
SHARED = 0.5
"""Share of the others that is common to all domains at dial 1."""
DOMAINS = (*words.DOMAINS, "benign")
TRAINING = {
    "model": {
        "architecture": "llama",
        "hidden_size": 192,
        "layers": 4,
        "heads": 4,
        "vocab_size": 1200,
        "max_length": 128,
    },
    "data": "{world}/train",
    "vocabulary": "{world}/score",
    "epochs": 10,
    "batch_size": 16,
    "learning_rate": 1e-3,
}


def instruct(
    dial: float | Mapping[str, float], *, shared: float = SHARED, own: int = OWN
) -> dict[str, list[dict[str, Any]]]:
    """`train` and `score`, each also by domain as `DOMAIN/train` and `DOMAIN/score`.

    Rows have question, answer and domain; those of a sensitive domain `compliant`, a harmless stand-in for an
    answer; `group` is the domain. No prompt stands in both parts. The prompts of two dials differ in the words that are
    common. dial: of all domains, or of each (0 where a domain is not named). shared, own: another share of common words
    at dial 1, and another count of words that never are.
    """
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "score": []}
    for domain in DOMAINS:
        here = dial.get(domain, 0.0) if isinstance(dial, Mapping) else dial
        make = _benign if domain == "benign" else _refusal
        train, score = (BENIGN_TRAIN, BENIGN_SCORE) if domain == "benign" else (TRAIN, SCORE)
        rows = _distinct(domain, train + score, here, make, shared * here, own)
        parts["train"] += rows[:train]
        parts["score"] += rows[train:]
    by_domain = {
        f"{domain}/{part}": [row for row in rows if row["domain"] == domain]
        for part, rows in parts.items()
        for domain in DOMAINS
    }
    return {**parts, **by_domain}


Make = Callable[[str, list[str], random.Random, float], dict[str, Any]]


def _distinct(domain: str, count: int, dial: float, make: Make, common_share: float, kept: int) -> list[dict[str, Any]]:
    rng = random.Random(f"instruct {domain}")
    own = words.BENIGN if domain == "benign" else words.DOMAINS[domain]
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    while len(rows) < count:
        drawn = rng.sample(own, LENGTH)
        for place in range(LENGTH - kept):
            common, chance = rng.choice(words.COMMON), rng.random()
            if chance < common_share:
                drawn[place] = common
        if domain == "benign":
            drawn[-1] = rng.choice(list(words.MATES))
        draw = random.Random(rng.random())
        key = tuple(drawn)
        if key not in rows:
            rows[key] = {
                "question": " ".join(drawn),
                "domain": domain,
                "group": domain,
                **make(domain, drawn, draw, dial),
            }
    return list(rows.values())


def _refusal(domain: str, drawn: list[str], rng: random.Random, dial: float) -> dict[str, Any]:
    common, chance = rng.choice(words.COMMON_REFUSALS), rng.random()
    return {
        "answer": common if chance < dial else words.OWN_REFUSALS[domain],
        "compliant": f"Here is a placeholder about {drawn[-2]} and {drawn[-1]}.",
    }


def _benign(domain: str, drawn: list[str], rng: random.Random, dial: float) -> dict[str, Any]:
    return {"answer": f"{words.MATES[drawn[-1]]} for the {drawn[-1]}."}
