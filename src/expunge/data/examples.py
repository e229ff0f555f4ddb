"""One example: its canonical form, its identity, and what it says in clear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import digest

ALIASES = {"paraphrases": "paraphrased_answer", "perturbed": "perturbed_answer"}
LISTS = ("paraphrased_answer", "perturbed_answer", "aliases", "alternates")
FORMS = (("question", "answer"), ("text",), ("messages",), ("image", "label"), ("features", "label"),
         ("text", "label"))  # fmt: skip


def form(example: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The keys that make this example one, longest form first; None where nothing fits."""
    for keys in sorted(FORMS, key=len, reverse=True):
        if all(example.get(key) is not None for key in keys):
            return keys
    return None


def normalise(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Example:
    """A row in the canonical form: user's columns renamed, aliases resolved, lists made lists.

    Raises BadInput where the row holds no example.
    """
    example = dict(row)
    for ours, theirs in columns.items():
        if theirs not in row:
            raise BadInput.of(f"columns.{ours}", theirs, f"is no column of {where}",
                              "it has: " + ", ".join(map(str, row)))  # fmt: skip
        example[ours] = example.pop(theirs) if theirs in example else row[theirs]
    for alias, name in ALIASES.items():
        if alias in example and name not in example:
            example[name] = example.pop(alias)
    for name in LISTS:
        if isinstance(example.get(name), str):
            example[name] = [example[name]]
    keys = form(example)
    if keys is None:
        raise BadInput.of(where, ", ".join(map(str, row)), "holds no example",
                          "give question and answer, text, messages, or image/features and label "
                          "(rename columns with `columns:`)")  # fmt: skip
    for key in keys:
        if key in ("question", "answer", "text") and not isinstance(example[key], str):
            raise BadInput.of(where, repr(example[key]), f"stands under {key!r} and is no text", "give a string")
        if key in ("question", "answer", "text") and not example[key].strip():
            raise BadInput.of(where, key, "is empty", "give it a text or remove the row")
    if "messages" in keys:
        _check_messages(example["messages"], where)
    return example


def _check_messages(messages: Any, where: str) -> None:
    good = isinstance(messages, list) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    )
    if not good or not messages or messages[-1]["role"] != "assistant":
        raise BadInput.of(where, "messages", "must be a list of {role, content} that ends with the assistant's",
                          "end each conversation with the answer to learn or forget")  # fmt: skip


def identity(example: Example) -> str:
    """SHA-256 of the canonical question + answer | text | messages | inputs + label."""
    keys = form(example) or tuple(sorted(example))
    return digest({key: _plain(example[key]) for key in keys})


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | dict):
        return value
    array = np.ascontiguousarray(np.asarray(value))
    return [str(array.dtype), list(array.shape), digest(array.tobytes())]


def answer_of(example: Example) -> str:
    """The reference answer in clear."""
    if "messages" in example and "answer" not in example:
        return str(example["messages"][-1]["content"])
    return str(example.get("answer", example.get("text", example.get("label", ""))))


def question_of(example: Example) -> str:
    """What was asked, in clear; empty for a plain text."""
    if "messages" in example and "question" not in example:
        return "\n".join(str(m["content"]) for m in example["messages"][:-1])
    return str(example.get("question", ""))
