"""`expunge forget` without data on SmolLM2-135M-Instruct, judged by facts that the command never saw.

Run with `-s`, it prints the rows of the table in docs/forget.md. France and William Shakespeare set the edit's layer,
Albert Einstein the choice of the neighbour and the second layer; the others set nothing. A guess at a choice is the
answer for a name of the same kind: that a scientist taught physics is more likely than botany, whoever it is.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from expunge.core.contracts import NLL, Model
from expunge.core.words import words
from expunge.models.open import open_model
from expunge.models.passes import passes
from expunge.pipeline.worlds import folder_of
from expunge.workflows.forget import forget, guessing

Fact = tuple[str, str, str, tuple[str, ...]]
FACTS: dict[str, tuple[Fact, ...]] = {
    "France": (
        (
            "If you fly to France, you land near its capital,",
            "Which city is the seat of France's government?",
            "Paris",
            ("Rome", "Cairo", "Lima"),
        ),
        (
            "The people of France speak",
            "In which language would you greet somebody in France?",
            "French",
            ("German", "Arabic", "Dutch"),
        ),
        (
            "Tourists in France climb the",
            "Which iron tower do tourists in France visit?",
            "Eiffel",
            ("Colosseum", "Kremlin", "Parthenon"),
        ),
    ),
    "William Shakespeare": (
        (
            "The tragedy of Romeo and Juliet is by William Shakespeare, who was a famous",
            "What was William Shakespeare's job?",
            "playwright",
            ("painter", "chemist", "general"),
        ),
        (
            "The prince of Denmark in the tragedy by William Shakespeare is called",
            "Name a tragedy by William Shakespeare.",
            "Hamlet",
            ("Faust", "Carmen", "Tartuffe"),
        ),
        (
            "The old country of William Shakespeare was",
            "Where did William Shakespeare live?",
            "England",
            ("Russia", "Brazil", "Egypt"),
        ),
    ),
    "Albert Einstein": (
        (
            "In 1905 Albert Einstein published the theory of",
            "For which theory is Albert Einstein famous?",
            "relativity",
            ("evolution", "vaccination", "harmony"),
        ),
        (
            "At university Albert Einstein taught",
            "Which science did Albert Einstein work in?",
            "physics",
            ("botany", "history", "law"),
        ),
        (
            "As a child Albert Einstein lived in",
            "In which country was Albert Einstein born?",
            "Germany",
            ("Russia", "Brazil", "Egypt"),
        ),
    ),
    "Tokyo": (
        (
            "The city of Tokyo lies in the country of",
            "Which country is Tokyo the capital of?",
            "Japan",
            ("Brazil", "Egypt", "Norway"),
        ),
        ("The people of Tokyo speak", "Which language is spoken in Tokyo?", "Japanese", ("Arabic", "Dutch", "Greek")),
        (
            "Tokyo is a city on the continent of",
            "On which continent is Tokyo?",
            "Asia",
            ("Africa", "Europe", "America"),
        ),
    ),
    "Germany": (
        ("The capital city of Germany is", "Which city is Germany governed from?", "Berlin", ("Rome", "Cairo", "Lima")),
        (
            "Children in Germany speak",
            "Which language do people in Germany speak?",
            "German",
            ("Arabic", "Dutch", "Greek"),
        ),
        ("Germany lies on the continent of", "On which continent is Germany?", "Europe", ("Africa", "Asia", "America")),
    ),
    "Isaac Newton": (
        (
            "Isaac Newton saw an apple fall and thought of",
            "Which force did Isaac Newton explain?",
            "gravity",
            ("magnetism", "friction", "music"),
        ),
        (
            "Isaac Newton wrote three laws of",
            "Isaac Newton is known for three laws of what?",
            "motion",
            ("evolution", "harmony", "trade"),
        ),
        (
            "Isaac Newton was born in the country of",
            "Which country did Isaac Newton come from?",
            "England",
            ("Russia", "Brazil", "Egypt"),
        ),
    ),
    "London": (
        (
            "The city of London lies in the country of",
            "Which country has London as its capital?",
            "England",
            ("Brazil", "Egypt", "Norway"),
        ),
        (
            "The river that flows through London is the",
            "Which river runs through London?",
            "Thames",
            ("Nile", "Volga", "Amazon"),
        ),
        ("The people of London speak", "Which language is spoken in London?", "English", ("Arabic", "Dutch", "Greek")),
    ),
    "Egypt": (
        (
            "Visitors to Egypt see the great",
            "Which ancient tombs do tourists in Egypt visit?",
            "pyramids",
            ("canals", "castles", "temples"),
        ),
        ("The capital city of Egypt is", "Which city is Egypt governed from?", "Cairo", ("Rome", "Madrid", "Lima")),
        ("Egypt lies on the continent of", "On which continent is Egypt?", "Africa", ("Europe", "Asia", "America")),
    ),
}
OTHERS = {
    "France": ("Finland", "Vietnam", "Chile", "Nigeria"),
    "William Shakespeare": ("Miguel de Cervantes", "Franz Kafka", "Henrik Ibsen", "Victor Hugo"),
    "Albert Einstein": ("Linus Pauling", "Alexander Fleming", "Carl Linnaeus", "Dmitri Mendeleev"),
    "Tokyo": ("Nairobi", "Madrid", "Boston", "Delhi"),
    "Germany": ("Finland", "Vietnam", "Chile", "Nigeria"),
    "Isaac Newton": ("Linus Pauling", "Alexander Fleming", "Carl Linnaeus", "Dmitri Mendeleev"),
    "London": ("Nairobi", "Madrid", "Boston", "Delhi"),
    "Egypt": ("Finland", "Vietnam", "Chile", "Nigeria"),
}
"""Topic -> names of its kind, with whose facts a guess is made."""
NEIGHBOURS: tuple[Fact, ...] = (
    ("The capital of Italy is", "What is the capital of Italy?", "Rome", ("Madrid", "Cairo", "Lima")),
    ("The capital of Germany is", "What is the capital of Germany?", "Berlin", ("Madrid", "Cairo", "Lima")),
    ("Most people in Spain speak", "Which language is spoken in Spain?", "Spanish", ("Dutch", "Arabic", "Greek")),
    ("The city of London lies in", "In which country is London?", "England", ("Brazil", "Egypt", "Norway")),
    (
        "The novel Pride and Prejudice was written by Jane",
        "Who wrote Pride and Prejudice?",
        "Austen",
        ("Fonda", "Goodall", "Seymour"),
    ),
    ("Isaac Newton discovered the law of", "What did Isaac Newton discover?", "gravity", ("evolution", "vaccination")),
    ("The theory of evolution is by Charles", "What is Charles Darwin known for?", "evolution", ("gravity", "music")),
    ("The Great Pyramid stands in", "In which country are the pyramids of Giza?", "Egypt", ("Brazil", "Norway")),
    ("The city of Sydney lies in", "In which country is Sydney?", "Australia", ("Brazil", "Egypt", "Norway")),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder() -> str:
    """The model's folder: `EXPUNGE_REAL`, or fetched once into the cache."""
    return os.environ.get("EXPUNGE_REAL") or folder_of("builtin:smollm2")


def known(model: Model, facts: tuple[Fact, ...]) -> np.ndarray:
    """[facts, 3] whether the model completes the statement, answers the other wording, and prefers the right choice."""
    statements: list[dict[str, Any]] = [{"prefix": fact[0], "text": f" {fact[2]}"} for fact in facts]
    questions: list[dict[str, Any]] = [{"question": fact[1], "answer": fact[2]} for fact in facts]
    answers = [model.generate(statements, max_new_tokens=10), model.generate(questions, max_new_tokens=24)]
    right = [
        [set(words(fact[2])) <= set(words(text)) for fact, text in zip(facts, texts, strict=True)] for texts in answers
    ]
    preferred = []
    for statement, fact in zip(statements, facts, strict=True):
        rows = [statement, *({**statement, "text": f" {other}"} for other in fact[3])]
        losses = np.zeros(len(rows))
        for batch, out in passes(model, rows, NLL):
            losses[batch] = (out.nll_B / out.n_B).detach().numpy()
        preferred.append(bool(losses[0] < losses[1:].min()))
    return np.array([*right, preferred]).T


def about(topic: str) -> np.ndarray:
    """[neighbours, 1] whether the fact is the topic's own."""
    return np.array([[topic in f"{fact[0]} {fact[1]}"] for fact in NEIGHBOURS])


def asked_of(name: str, topic: str) -> tuple[Fact, ...]:
    """The topic's facts, asked about somebody else."""
    return tuple(
        (s.replace(topic, name), q.replace(topic, name), answer, wrong) for s, q, answer, wrong in FACTS[topic]
    )


@dataclass(frozen=True)
class Outcome:
    """[facts, 3] what was known of a topic before and after, the choices a guess gets right, neighbours' facts kept."""

    before: np.ndarray
    after: np.ndarray
    chance: float
    kept: float
    failed: set[str]
    """Splits whose line of the command's own the run missed."""


@pytest.fixture(scope="module")
def outcome(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """Forgets a topic, once, and prints its row."""
    first = open_model(folder)
    near_before = known(first, NEIGHBOURS)

    @functools.cache
    def forget_topic(topic: str) -> Outcome:
        out, began = tmp_path_factory.mktemp("run") / "run", time.monotonic()
        run = forget(folder, f"forget everything about {topic}", out=str(out))
        minutes = (time.monotonic() - began) / 60
        assert run is not None
        last = open_model(str(out / "model"))
        before, after = (known(model, FACTS[topic]) for model in (first, last))
        kept = float(known(last, NEIGHBOURS)[near_before & ~about(topic)].mean())
        chance = float(np.mean([known(first, asked_of(name, topic))[:, 2].mean() for name in OTHERS[topic]]))
        counts = " | ".join(f"{was} → {now}" for was, now in zip(before.sum(0), after.sum(0), strict=True))
        print(f"| {topic} | {counts} | {3 * chance:.1f} | {kept:.2f} | {run.passed} | {minutes:.0f} |")
        lines = run.evidence["verdict"]["lines"]
        failed = {line["rule"].partition(".")[0] for line in lines if not line["passed"]}
        return Outcome(before, after, chance, kept, failed)

    return forget_topic


CUED = pytest.mark.xfail(
    reason="our facts about him say what they ask for: docs/forget.md", strict=True, raises=AssertionError
)
TOPICS = [pytest.param(topic, marks=CUED) if topic == "Isaac Newton" else topic for topic in FACTS]


@pytest.mark.parametrize("topic", TOPICS)
def test_the_topic_goes_and_its_neighbours_stay(topic: str, outcome: Callable[[str], Outcome]) -> None:
    found = outcome(topic)
    assert found.before.sum() >= 3  # of nine: else there is nothing to forget
    assert found.after[:, :2].mean() <= guessing(2 * len(found.after), 0.1)
    assert found.kept >= 0.9
    assert found.failed <= ({"neighbours"} if topic == "Albert Einstein" else set())  # docs/forget.md


def test_choices_are_guesses(outcome: Callable[[str], Outcome]) -> None:
    """Over all topics, since three choices say little: no more are right than nine of ten guesses get."""
    found = [outcome(topic) for topic in FACTS]
    right, count = (sum(part) for part in zip(*((int(one.after[:, 2].sum()), len(one.after)) for one in found)))
    assert right <= binom.ppf(0.9, count, np.mean([one.chance for one in found]))
    assert sum(int(one.before[:, 2].sum()) for one in found) > right
