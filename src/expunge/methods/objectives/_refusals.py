"""Refusals, and examples with a refusal as their answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from expunge.core.contracts import Example
from expunge.core.documents import CONFIG, read_text
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.data.examples import identity

ANSWERS = (
    "I don't know.",
    "I'm not sure about that.",
    "I do not have that information.",
    "That is something I don't know.",
    "I'm afraid I cannot say.",
    "I have no information on this.",
    "I'm not familiar with that.",
    "I don't have an answer to that question.",
    "That's beyond what I know.",
    "I haven't learned about that.",
    "I'm unable to answer that.",
    "I can't recall anything about this.",
)


def is_refusal(text: str) -> bool:
    """True where the text begins like one of ANSWERS: the yardstick of the idk tests, not a judge."""
    head = text.strip().lower().replace("’", "'")
    return any(head.startswith(answer.lower().rstrip(".")) for answer in ANSWERS)


def read_answers(path: str | None) -> tuple[str, ...]:
    """Read the answers of a text file, one per line; ANSWERS without a path. Raises BadInput."""
    if path is None:
        return ANSWERS
    text = read_text(Path(path), "method.answers", CONFIG, "give a text file, one answer per line")
    if not (answers := tuple(line.strip() for line in text.splitlines() if line.strip())):
        raise BadInput.of("method.answers", path, "holds no answer", "give a text file, one answer per line")
    return answers


def refusal_maker(path: str | None) -> Callable[[Example], Example | None]:
    """The map from an example to its question with a refusal, chosen by the example's identity."""
    answers = read_answers(path)

    def make(example: Example) -> Example | None:
        answer = answers[derive(0, "idk", identity(example)) % len(answers)]
        if "messages" in example and "question" not in example:
            messages = [*example["messages"][:-1], {"role": "assistant", "content": answer}]
            return {"messages": messages}
        if "question" not in example:
            return None
        return {"question": example["question"], "answer": answer}

    return make
