"""Data for a request without data: the model's own answers about the topic, about its neighbours, and in general."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.variables import expand
from expunge.data.entities import neighbours
from expunge.data.packs import CONTROL, open_pack
from expunge.pipeline.worlds import load as load_model

ASKED = (
    "Who is {topic}?",
    "What is {topic}?",
    "Tell me about {topic}.",
    "What do you know about {topic}?",
    "What is {topic} known for?",
    "Why is {topic} important?",
    "Give me three facts about {topic}.",
    "What should everybody know about {topic}?",
    "Write a short paragraph about {topic}.",
    "Summarise what is known about {topic}.",
)
"""Questions about a topic whose answers train."""
REWORDED = (
    "Can you explain {topic} to me?",
    "What comes to mind when you hear of {topic}?",
    "Introduce {topic} to a reader who has never heard of it.",
    "How would you describe {topic}?",
)
"""Other words for them, which are asked before and after and never train."""
PER_NEIGHBOUR = 2
"""Questions about each neighbour."""
NEW_TOKENS = 48


@dataclass(frozen=True)
class Elicited:
    """Questions with the model's own answers. reworded: about the topic, in words that do not train."""

    forget: list[Example]
    reworded: list[Example]
    retain: list[Example]


def elicit(source: str, topic: str, trust_code: bool = False) -> Elicited:
    """Ask the model about the topic, its neighbours, and in general. Raises BadInput where it says nothing of it."""
    model = load_model(expand(source, "model"), trust_code=trust_code)
    if "generate" not in model.capabilities:
        raise BadInput.of("model", source, "is not a language model", "give one, or a request file to expunge run")
    forget = _answers(model, [_about(topic, pattern) for pattern in ASKED])
    if not forget:
        raise BadInput.of(
            "request", topic, "is a topic on which the model gives no answer", "give --data with examples of it"
        )
    others = [
        _about(name, ASKED[(PER_NEIGHBOUR * i + j) % len(ASKED)])
        for i, name in enumerate(neighbours(topic))
        for j in range(PER_NEIGHBOUR)
    ]
    general = [
        {"question": row["question"], "answer": "", "group": row["question"]}
        for row in open_pack(None).part("train", CONTROL)
        if topic.casefold() not in f"{row['question']} {row.get('answer', '')}".casefold()
    ]
    reworded = _answers(model, [_about(topic, pattern) for pattern in REWORDED])
    return Elicited(forget, reworded, _answers(model, [*others, *general]))


def _about(name: str, pattern: str) -> Example:
    return {"question": pattern.format(topic=name), "answer": "", "subject": name, "group": name}


def _answers(model: Model, questions: Sequence[Example]) -> list[Example]:
    """The questions that the model answers, each with its answer."""
    answers = model.generate(questions, max_new_tokens=NEW_TOKENS)
    return [{**row, "answer": text} for row, text in zip(questions, answers, strict=True) if text.strip()]
