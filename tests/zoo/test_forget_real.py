"""`expunge forget` without data on SmolLM2-135M-Instruct, judged by facts that the command never saw.

Run with `-s`, it prints the rows of the first table in docs/forget.md. France and William Shakespeare set the edit's
layer, Albert Einstein the choice of the neighbour and the second layer; he, Wolfgang Amadeus Mozart, Galileo Galilei
and Tokyo set the edit of first names. The others set nothing. A guess at a choice is the answer for a name of the same
kind: that a scientist taught physics is more likely than botany, whoever it is.
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
from zoo.topics import FACTS, NEIGHBOURS, OTHERS, Fact

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
    assert found.after[:, :2].sum() < found.before[:, :2].sum()  # the bar above may have been met before
    assert found.kept >= 0.9
    assert not found.failed


def test_choices_are_guesses(outcome: Callable[[str], Outcome]) -> None:
    """Over all topics, since three choices say little: no more are right than nine of ten guesses get."""
    found = [outcome(topic) for topic in FACTS]
    right, count = (sum(part) for part in zip(*((int(one.after[:, 2].sum()), len(one.after)) for one in found)))
    assert right <= binom.ppf(0.9, count, np.mean([one.chance for one in found]))
    assert sum(int(one.before[:, 2].sum()) for one in found) > right
