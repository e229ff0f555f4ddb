"""Marks in data, and tests that a model was trained on data: traps, taggants, order of options.

A mark is made before the data are published and has a secret twin, drawn in the same way and never
published. A model that finds the marks more likely than their twins was trained on them; after
unlearning it must not. Every p-value is exact for a model that never saw the data: marks and twins
are then exchangeable, since a secret coin chose between them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.attacks.shared.recovery import answer_probability
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.evaluation.arrays import rouge

LARGEST_SHARE = 0.5
"""Tagged rows are false: above one half they would ruin the data."""


@dataclass(frozen=True)
class Marks:
    """Marks and their secret twins.

    published: go into the data. twins: stay secret; twin i was drawn as published i was. places: for taggants, the rows
    (from 0) that the published ones replace.
    """

    published: list[Example]
    twins: list[Example]
    places: tuple[int, ...] = ()


def traps(count: int, words: Iterable[str], *, length: int = 12, secret: int = 0) -> Marks:
    """Copyright traps: random sequences of the words, `count` to publish and as many twins (Meeus et al. 2024).

    words: the vocabulary of the surrounding texts. secret: the seed, which is never published. Raises BadInput.
    """
    known = sorted(set(words))
    if count < 1 or length < 2 or len(known) < 2:
        raise BadInput.of(
            "traps", f"{count} of {length} words", "cannot be made", "give at least one trap and two words"
        )
    # One generator each: from a single stream, the published words would reveal the twins between them.
    draws = (random.Random(derive(secret, "traps", i)) for i in range(2 * count))
    made = [{"text": " ".join(draw.choices(known, k=length))} for draw in draws]
    return Marks(made[::2], made[1::2])


def taggants(rows: Sequence[Example], *, share: float = 0.1, secret: int = 0) -> Marks:
    """Data taggants: a seeded share of the examples with their answers exchanged by a secret draw.

    Each published example has one false answer (that of another example), its twin another one; the
    share must be small, since the answers are false (after Bouaziz et al. 2024, who tag images).
    Raises BadInput.
    """
    if not 0 < share <= LARGEST_SHARE:
        raise BadInput.of(
            "share",
            share,
            "is outside the range that can be tagged",
            f"give a share above 0 and up to {LARGEST_SHARE}: tagged answers are false",
        )
    known = sorted({str(row.get("answer")) for row in rows})
    if len(known) < 3 or not all(row.get("question") and row.get("answer") for row in rows):
        raise BadInput.of(
            "taggants",
            len(rows),
            "examples cannot be tagged",
            "give questions with at least three different answers, or set traps",
        )
    places = random.Random(derive(secret, "taggants", "rows")).sample(
        range(len(rows)), max(1, round(share * len(rows)))
    )
    published, twins = [], []
    for i in places:
        drawn = random.Random(derive(secret, "taggants", i)).sample(known, 3)
        first, second = [answer for answer in drawn if answer != str(rows[i]["answer"])][:2]
        published.append({"question": rows[i]["question"], "answer": first})
        twins.append({"question": rows[i]["question"], "answer": second})
    return Marks(published, twins, tuple(places))


def trained_on(model: Model, marks: Marks) -> float:
    """p-value that the model was not trained on the published marks: a one-sided sign-flip test.

    Statistic: the mean difference in log-probability per token between mark and twin; 9,999 random
    exchanges of each mark with its twin (the smallest p is 1e-4, and 2^-count with few marks).
    """
    return sign_flip_p(leads(model, marks))


def leads(model: Model, marks: Marks) -> np.ndarray:
    """[N] lead of each mark over its twin, in nats per token."""
    logs = np.log(np.maximum(1e-300, answer_probability(model, [*marks.published, *marks.twins])))
    return np.asarray(logs[: len(marks.published)] - logs[len(marks.published) :])


def sign_flip_p(lead_N: np.ndarray, draws: int = 9999) -> float:
    """One-sided p-value that [N] differences are symmetric about 0 and not above it."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(draws, len(lead_N)))
    return float((1 + ((signs * lead_N).mean(axis=1) >= lead_N.mean() - 1e-12).sum()) / (draws + 1))


GUIDED = (
    "You are given the first piece of an instance from the {split} split of the {dataset} dataset. Finish it exactly "
    "as it stands there.\nFirst piece: {piece}"
)
GENERAL = "Finish the text from its first piece.\nFirst piece: {piece}"


def guided_completion(
    model: Model, rows: Sequence[Example], *, dataset: str, split: str = "train", shown: float = 0.5
) -> float:
    """p-value that naming the dataset does not help the model to finish its instances (Golchin and Surdeanu 2023).

    rows: {"text"}, of which the first share `shown` of the words is given, or {"question", "answer"}, of which the
    question is given. Each is completed under an instruction that names dataset and split and under one that does not;
    the overlap with the true rest (ROUGE-L recall) is compared by sign flips. A model that cannot follow instructions
    gives a large p, whatever it saw. Raises BadInput.
    """
    if not dataset or not 0 < shown < 1:
        raise BadInput.of("dataset", dataset, "cannot be tested", "give its name, and a share shown between 0 and 1")
    kept = pieces(rows, shown)
    if not kept:
        raise BadInput.of(
            "rows",
            len(rows),
            "examples cannot be completed",
            "give texts of at least two words, or questions with answers",
        )
    overlap = []
    for form in (GUIDED, GENERAL):
        prompts = [
            {"question": form.format(split=split, dataset=dataset, piece=first), "answer": rest} for first, rest in kept
        ]
        said = model.generate(prompts)
        overlap.append([(rouge(rest, text) or (0.0,))[0] for (_, rest), text in zip(kept, said, strict=True)])
    return sign_flip_p(np.array(overlap[0]) - np.array(overlap[1]))


def pieces(rows: Sequence[Example], shown: float = 0.5) -> list[tuple[str, str]]:
    """(shown part, rest) of each row that can be completed."""
    cut = [_cut(row, shown) for row in rows]
    return [(first, rest) for first, rest in cut if first and rest and rouge(rest, "") is not None]


def _cut(row: Example, shown: float) -> tuple[str, str]:
    """(shown part, rest) of a row."""
    if "text" not in row:
        return str(row.get("question", "")), str(row.get("answer", ""))
    words = str(row["text"]).split()
    at = max(1, round(shown * len(words)))
    return " ".join(words[:at]), " ".join(words[at:])


def option_order(model: Model, rows: Sequence[Example], *, orders: int = 20, seed: int = 0) -> float:
    """p-value that the model has not seen the benchmark's own order of options (after Oren et al. 2023).

    rows: {"question", "options"}. The text of each question with its options in their published order
    is compared with random other orders: a model that never saw it prefers none. The rank of the
    published order among all orders gives each question's p, and their mean is tested. Raises BadInput.
    """
    if orders < 1 or not rows or not all(row.get("question") and len(row.get("options") or []) > 2 for row in rows):
        raise BadInput.of("rows", len(rows), "examples cannot be tested", "give a question and at least three options")
    made: list[Example] = []
    for i, row in enumerate(rows):
        draw = random.Random(derive(seed, "option_order", i))
        for place in range(orders + 1):
            options = [str(option) for option in row["options"]]
            if place:
                draw.shuffle(options)
            made.append({"question": str(row["question"]), "answer": "; ".join(options)})
    logs = np.log(np.maximum(1e-300, answer_probability(model, made))).reshape(len(rows), orders + 1)
    own, others = logs[:, :1], logs[:, 1:]
    ranks = ((own > others + 1e-9) + 0.5 * (np.abs(own - others) <= 1e-9)).mean(axis=1)
    return sign_flip_p(ranks - 0.5)
