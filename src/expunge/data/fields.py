"""Field names of published data sets: understood, or named where nothing reads them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from expunge.core.card import Example
from expunge.core.errors import BadInput

RENAMED = (
    ({"text": "question", "labels": "answer"}, "KnowUnDo"),
    ({"query": "question", "answer": "answer"}, "RWKU"),
    ({"prompt": "prefix", "gt": "text"}, "MUSE's verbatim passages"),
)
"""Names of fields -> ours; read so where all of them hold texts, and `columns:` names none of them."""
ANSWER_FIELDS = (
    *("answers", "response", "responses", "completion", "completions", "output", "outputs", "target", "targets"),
    *("labels", "gt", "ground_truth", "gold", "reply", "solution", "answerKey"),
)
"""Names that other data sets give to the answer."""
QUESTION_FIELDS = ("prompt", "query", "instruction", "input", "inputs")
BESIDE = ("input", "context", "instruction", "system", "system_prompt")
"""Names of what other data sets put before a question."""
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""Speakers of ShareGPT's conversations -> roles of messages."""
USUAL = ("system", "user", "assistant", "tool", "developer")
"""Roles that chat templates know; some know more."""
CHOICES = 26
"""Most choices of a row: each has a letter."""


def rename_published(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with the fields of a known data set under our names."""
    renamed = dict(row)
    for names, _ in RENAMED:
        texts = all(isinstance(row.get(name), str) and row[name].strip() for name in names)
        ours = set(names.values()) - set(names)
        if texts and not ours & set(row) and not set(names) & set(columns.values()):
            renamed = {names.get(key, key): value for key, value in row.items()}
    return _with_input(renamed, columns)


def _with_input(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """An Alpaca row (instruction, input, output) as question and answer: the input follows the instruction."""
    names = ("instruction", "input", "output")
    if {"question", "answer", *columns} & set(row) or set(names) & set(columns.values()):
        return row
    if not all(isinstance(row.get(name), str) for name in names):
        return row
    instruction, given, output = (row.pop(name) for name in names)
    question = "\n".join(part for part in (instruction, given) if part.strip())
    return {**row, "question": question, "answer": output}


def as_messages(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its conversation as messages whose contents are texts.

    Understood are ShareGPT's `conversations` ({from, value}), a prompt and a completion that are lists of messages, and
    contents in parts that are all texts. What is neither stays as it is.
    """
    found = dict(row)
    if _turns(found.get("prompt")) and _turns(found.get("completion")) and "messages" not in found:
        found["messages"] = [*found.pop("prompt"), *found.pop("completion")]
    elif _turns(found.get("conversations")) and "messages" not in found:
        found["messages"] = found.pop("conversations")
    if _turns(found.get("messages")):
        found["messages"] = [_message(turn) for turn in found["messages"]]
    return found


def _turns(value: Any) -> TypeGuard[list[Mapping[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _message(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """A turn as {role, content}, the content a text."""
    if set(turn) >= {"from", "value"} and turn["from"] in ROLES:
        turn = {"role": ROLES[turn["from"]], "content": turn["value"]}
    parts = turn.get("content")
    if _turns(parts) and all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
        return {**turn, "content": "".join(part["text"] for part in parts)}
    return turn


def check_role(role: str, where: str) -> None:
    """Raises BadInput for a role that is nearly a usual one: templates leave out what they do not know, unsaid."""
    name = role.strip().casefold()
    near = [ROLES.get(name, ""), *difflib.get_close_matches(name, USUAL, n=1, cutoff=0.8)]
    if role not in USUAL and (meant := next(filter(None, near), "")):
        raise BadInput.of(where, role, "is an unknown role", f"did you mean {meant!r}?")


def filled_answer_fields(row: Mapping[str, Any]) -> list[str]:
    """The fields of a row that look like its answer, and that no form of an example reads."""
    return [name for name in ANSWER_FIELDS if row.get(name) is not None and not _blank(row[name])]


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def suggested_columns(row: Mapping[str, Any]) -> str:
    """`columns: {...}` that would make this row a question and answer; empty where its fields suggest none."""
    names = {str(name).strip().casefold(): name for name in row if isinstance(row[name], str)}
    question = next((names[name] for name in ("question", *QUESTION_FIELDS, "text") if name in names), None)
    answer = next((names[name.casefold()] for name in ("answer", *ANSWER_FIELDS) if name.casefold() in names), None)
    if question is None or answer is None:
        return ""
    renamed = {ours: theirs for ours, theirs in (("question", question), ("answer", answer)) if ours != theirs}
    quoted = {ours: theirs if theirs == theirs.strip() else repr(theirs) for ours, theirs in renamed.items()}
    return "columns: {" + ", ".join(f"{ours}: {theirs}" for ours, theirs in quoted.items()) + "}"


def ignored_answers(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A sentence for each field that looks like an answer, or a part of the question, and is not read, for the plan."""
    notes = []
    for split, rows in splits.items():
        counts: dict[str, int] = {}
        for row in rows:
            before = [name for name in BESIDE if isinstance(row.get(name), str) and row[name].strip()]
            before += [name for name in ("text", "messages") if "answer" in row and row.get(name)]
            for name in [*filled_answer_fields(row), *before]:
                counts[name] = counts.get(name, 0) + 1
        notes += [
            f"{split}: the field {name!r} of {count} of {len(rows)} rows is not read (`columns:` renames fields)."
            for name, count in counts.items()
        ]
    return notes


def with_letters(example: Mapping[str, Any], where: str) -> Example:
    """A multiple-choice row as question and answer: the choices under letters, the right letter as the answer.

    `answer` (or `answerKey`) is the right choice's place counted from 0, its letter, or its text; `choices` are a list,
    or {text, label} with labels of their own. The other letters become `perturbed_answer`. Raises BadInput.
    """
    choices, labels = _choices(example["choices"], where)
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    given = example.get("answer") if example.get("answer") is not None else example.get("answerKey")
    place = _place(given, choices, labels or letters, where)
    lines = [str(example.get("question") or ""), *(f"{a}. {b}" for a, b in zip(letters, choices, strict=True))]
    return {
        "question": "\n".join(lines),
        "answer": letters[place],
        "perturbed_answer": letters[:place] + letters[place + 1 :],
    }


def _choices(given: Any, where: str) -> tuple[list[str], list[str]]:
    """(the choices' texts, labels of their own). Raises BadInput."""
    labels = given.get("label") if isinstance(given, Mapping) else None
    texts = given.get("text") if isinstance(given, Mapping) else given
    if not isinstance(texts, list | tuple | np.ndarray) or not 0 < len(texts) <= CHOICES:
        raise BadInput.of(where, given, "is not a list of choices", f"give choices: a list of at most {CHOICES} texts")
    own = [str(label).strip() for label in labels] if labels is not None else []
    if own and len(own) != len(texts):
        raise BadInput.of(where, given, "has another number of labels than of choices", "give one label per choice")
    return [str(text) for text in texts], own


def _place(given: Any, choices: list[str], labels: list[str], where: str) -> int:
    """The place of the right choice, from 0. Raises BadInput where none or several could be meant."""
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        places = {int(given)}
    elif isinstance(given, str):
        name = given.strip()
        places = {i for i, label in enumerate(labels) if name.strip("().").upper() == label.upper()}
        places |= {i for i, text in enumerate(choices) if name == text.strip()}
        places |= {int(name)} if not places and name.isascii() and name.isdigit() else set()
    else:
        places = set()
    if len(places) != 1 or not 0 <= min(places) < len(choices):
        raise BadInput.of(
            where,
            given,
            f"under 'answer' does not name one of the {len(choices)} choices",
            "give the right choice's place as a number counted from 0, its letter (A is the first), or its text",
        )
    return min(places)
