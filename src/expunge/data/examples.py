"""One example: its canonical form, its identity, and its plain text."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import digest
from expunge.core.random import generator
from expunge.data.arrays import from_json
from expunge.data.cells import is_blank, parse_list
from expunge.data.fields import (
    as_messages,
    check_role,
    filled_answer_fields,
    rename_published,
    suggested_columns,
    with_letters,
)

if TYPE_CHECKING:
    import torch

ALIASES = {"paraphrases": "paraphrased_answer", "perturbed": "perturbed_answer"}
LISTS = ("paraphrased_answer", "perturbed_answer", "aliases", "alternates")
ASKED = ("paraphrased_question", "multi_hop_question", "cloze_question", "translated_question")
"""Other questions: each a text, {question, answer} where the answer differs, or a list of these."""
TEXTS = ("trace", "compliant", "class_prompt")
NAMES = ("group", "domain", "subject")
"""Tell rows apart: a text, a number or a truth value."""
DEEPEST = 50
"""Lists within lists in a field that holds no array."""
INPUTS = ("question", "answer", "text", "prefix", "messages", "image", "features", "label")
LONGEST = 4 * 2**20
"""Bytes of a text."""
FORMS = (
    ("question", "answer"),
    ("text",),
    ("messages",),
    ("image", "label"),
    ("features", "label"),
    ("text", "label"),
    ("image", "text"),
    ("image",),
    ("features",),
)
"""The keys that make a row an example; each family of models says which of these it takes."""
_LONGEST_FIRST = sorted(FORMS, key=len, reverse=True)


def form(example: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The keys that make this example one, longest form first; None where nothing fits."""
    for keys in _LONGEST_FIRST:
        if all(example.get(key) is not None for key in keys):
            return keys
    return None


def normalise(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Example:
    """A row in the canonical form: user's columns renamed, aliases resolved, lists made lists.

    Raises BadInput where the row holds no example.
    """
    _check_row(row, where)
    example = _rename(row, columns, where)
    keys = _form_of(example, row, columns, where)
    _check_fields(example, keys, where)
    _check_optional(example, where)
    return example


def _check_row(row: Mapping[str, Any], where: str) -> None:
    """Raises BadInput for keys that are no text, and for values that are too large, too deep or badly encoded."""
    for key, value in row.items():
        if not isinstance(key, str):
            raise BadInput.of(where, key, "names a field and is not text", "put it in quotes")
        _check_encodes(key, key[:80], where)
        if isinstance(value, str):
            _check_size(value, key, where)
            _check_encodes(value, key, where)
        elif key not in ("image", "features"):
            _check_depth(value, key, where)


def _rename(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Example:
    """The row under our names: columns renamed, aliases resolved, lists made lists. Raises BadInput."""
    example = {k: v for k, v in rename_published(row, columns).items() if k not in columns.values()}
    for ours, theirs in columns.items():
        _check_name(ours)
        if theirs not in row:
            raise BadInput.of(
                f"columns.{ours}", theirs, f"is not a column of {where}", "it has: " + ", ".join(map(str, row))
            )
        example[ours] = row[theirs]
    example = as_messages(example)
    for alias, name in ALIASES.items():
        if alias in example and name not in example:
            example[name] = example.pop(alias)
    if example.get("choices") is not None and isinstance(example.get("question"), str):
        example |= with_letters(example, where)
    for name in (*LISTS, *ASKED):
        if name in example:
            example[name] = parse_list(example[name], name, where)
    for name in LISTS:
        if isinstance(example.get(name), str):
            example[name] = [example[name]]
        if name in example and example[name] is None:
            del example[name]  # a table's empty cell
    return example


def _form_of(example: Example, row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> tuple[str, ...]:
    """The keys that make this example one; empty cells are removed. Raises BadInput where there are none, or two."""
    names = ", ".join(map(str, row))
    empty = [name for name in INPUTS if name in example and example[name] is None]
    for name in empty:
        del example[name]
    keys = form(example)
    if keys is None and empty:
        why = f"has nothing (null) under {' and '.join(empty)}"
        raise BadInput.of(where, names, why, "fill it in or remove the row")
    if keys is None:
        raise BadInput.of(
            where,
            names,
            "holds no example",
            suggested_columns(row)
            or "give question and answer, text, messages, or image/features and label (rename columns with `columns:`)",
        )
    twice = (
        {"answer", "messages"} & set(example)
        if keys == ("text",)
        else {"answer"} & set(example)
        if keys == ("messages",)
        else ()
    )
    if keys == ("text",) and "text" not in columns and (unread := filled_answer_fields(example)):
        raise BadInput.of(
            where,
            names,
            f"has a text and {' and '.join(unread)}, which would not be read",
            f"write {suggested_columns(row) or 'columns: {label: ' + unread[0] + '}'}, or columns: {{text: text}} for "
            "the text alone",
        )
    if twice:
        raise BadInput.of(
            where,
            names,
            f"holds {' and '.join([*keys, *sorted(twice)])}, which are two examples",
            "give question and answer, text, or messages alone",
        )
    return keys


def _check_fields(example: Example, keys: tuple[str, ...], where: str) -> None:
    """Checks the fields that make the example one, and its lists of texts. Raises BadInput."""
    for key in keys:
        if key in ("question", "answer", "text"):
            _check_text(example[key], key, where)
    if "prefix" in example and keys == ("text",):
        _check_text(example["prefix"], "prefix", where)
    if "messages" in keys:
        _check_messages(example["messages"], where)
    if "label" in keys:
        example["label"] = _number(example["label"])
        _check_label(example["label"], where)
        example["label"] = int(example["label"])
    for key in ("image", "features"):
        if key in keys:
            example[key] = from_json(example[key], where)
            _check_array(example[key], key, where)
    for name in LISTS:
        if name in example:
            if not isinstance(example[name], list | tuple | np.ndarray):
                raise BadInput.of(where, example[name], f"under {name!r} is not a list", "give a list of texts")
            example[name] = list(example[name])
            for text in example[name]:
                _check_text(text, name, where)
    if "question" not in keys:
        example.pop("question", None)  # without an answer it asks nothing, and the example is another


def _check_optional(example: Example, where: str) -> None:
    """Checks what attacks, groups and some methods read beside the example; an empty cell is none. Raises BadInput."""
    for name in (*ASKED, *TEXTS, *NAMES):
        value = example.get(name)
        empty = value is None or (isinstance(value, float) and value != value)  # pandas writes an empty cell as NaN
        if empty or (isinstance(value, str) and not value.strip() and name not in NAMES):
            example.pop(name, None)
        elif name in ASKED:
            example[name] = [value] if isinstance(value, str | Mapping) else value
            if not isinstance(example[name], list | tuple | np.ndarray):
                raise BadInput.of(
                    where, value, f"under {name!r} asks nothing", "give a question, or a list of questions"
                )
            example[name] = [_check_question(one, name, where) for one in example[name]]
        elif name in TEXTS:
            _check_text(value, name, where)
        elif isinstance(value, str):
            _check_encodes(value, name, where)
        elif not isinstance(value, bool | int | float | np.integer | np.floating | np.bool_):
            raise BadInput.of(where, value, f"under {name!r} is not a name", "give a text or a number")


def _check_question(one: Any, name: str, where: str) -> str | dict[str, str]:
    """One of the other questions, checked: a text, or a question with its own answer."""
    if not isinstance(one, Mapping):
        _check_text(one, name, where)
        return str(one)
    if one.get("question") is None:
        raise BadInput.of(where, one, f"under {name!r} has no question", "give question, and answer")
    found = {key: one[key] for key in ("question", "answer") if one.get(key) is not None}
    for key, text in found.items():
        _check_text(text, f"{name}.{key}", where)
    return found


def _check_depth(value: Any, key: str, where: str) -> None:
    level, depth = [value], 0
    while level := [part for one in level if isinstance(one, list | tuple | Mapping) for part in _within(one)]:
        depth += 1
        for part in level:
            if isinstance(part, str):
                _check_encodes(part, key, where)
        if depth > DEEPEST:
            raise BadInput.of(where, key, f"is nested more than {DEEPEST} deep", "write it flatter, or leave it out")


def _within(value: Any) -> Any:
    return value.values() if isinstance(value, Mapping) else value


@functools.cache
def _check_name(ours: str) -> None:
    """A column may have any name, for selectors and groups use them; one that is nearly ours is a slip."""
    known = {*INPUTS, *LISTS, *ALIASES}
    if ours not in known and (near := difflib.get_close_matches(ours, known, n=1, cutoff=0.85)):
        raise BadInput.of(f"columns.{ours}", ours, "unknown name", f"did you mean {near[0]!r}?")


def _check_size(text: str, key: str, where: str) -> None:
    """No model reads so much at once, and a tokenizer takes some 300 bytes of memory for each of them."""
    if len(text) > LONGEST // 4 and (size := len(text.encode(errors="replace"))) > LONGEST:
        raise BadInput.of(
            where,
            key,
            f"holds a text of {size:,} bytes, and an example may have {LONGEST:,}",
            "cut it into several examples",
        )


def _check_text(text: Any, key: str, where: str) -> None:
    if not isinstance(text, str):
        raise BadInput.of(where, text, f"under {key!r} is not text", "give a string")
    _check_size(text, key, where)
    if is_blank(text):
        raise BadInput.of(where, key, "is empty", "give it a text or remove the row")
    _check_encodes(text, key, where)


def _check_encodes(text: str, key: str, where: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput.of(
            where,
            text[:80],
            f"under {key!r} holds half a character (a lone surrogate)",
            "save the data as UTF-8 again",
        ) from None


def _number(label: Any) -> Any:
    """A class's number that a table holds as text, as a number; all else as it is."""
    return int(label) if isinstance(label, str) and re.fullmatch(r"\s*[0-9]{1,10}\s*", label) else label


def _check_label(label: Any, where: str) -> None:
    number = isinstance(label, int | float | np.integer | np.floating) and not isinstance(label, bool)
    if not number or not np.isfinite(label) or label != int(label) or not 0 <= label < 2**31:
        raise BadInput.of(where, label, "under 'label' is not a class", "give whole numbers from 0 up")


def _check_array(value: Any, key: str, where: str) -> None:
    if isinstance(value, str):
        fix = "give a folder of pictures, whose metadata.csv may name them (file_name, label), or arrays"
        raise BadInput.of(where, value[:80], f"under {key!r} is a text and no array", fix)
    try:
        array = np.asarray(value) if not isinstance(value, bytes | Mapping) else np.zeros(0)
        if array.dtype.kind not in "iub":
            with np.errstate(over="ignore"):  # too large a number is found below
                array = array.astype(np.float32)
        good = array.size > 0 and bool(np.isfinite(array).all())
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise BadInput.of(
            where, key, "holds no array of finite numbers", "give lists of numbers of one length, or a picture"
        )


def _check_messages(messages: Any, where: str) -> None:
    good = isinstance(messages, list) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    )
    if not good or not messages or messages[-1]["role"] != "assistant":
        raise BadInput.of(
            where,
            "messages",
            "must be a list of {role, content}, of texts alone, that ends with the assistant's",
            "end each conversation with the answer to learn or forget, and leave out what is no text",
        )
    for message in messages:
        check_role(message["role"], where)
        if message["content"] or message is messages[-1]:
            _check_text(message["content"], "messages", where)


def with_draw(example: Example, draw: int) -> Example:
    """The example as a stochastic model reads it at this draw, unless it has one of its own."""
    return example if "draw" in example else {**example, "draw": draw}


def noise_of(example: Example) -> torch.Generator:
    """The generator from which a stochastic loss draws for an example: of its content and its `draw` (0 without)."""
    return generator(int(example.get("draw", 0)), identity(example))


def identity(example: Example) -> str:
    """SHA-256 of the canonical question + answer | text (and its prefix) | messages | inputs + label.

    With another `draw` of a stochastic loss it is the same example.
    """
    keys = form(example) or tuple(sorted(example))
    keys += ("prefix",) if keys == ("text",) and "prefix" in example else ()
    return digest({key: _plain(example[key]) for key in keys})


def content(example: Example) -> str:
    """All that an example carries, as canonical JSON; arrays by their digest."""
    arrays = {key: _plain(np.asarray(example[key])) for key in ("image", "features") if key in example}
    return json.dumps({**example, **arrays}, sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | dict):
        return value
    array = np.ascontiguousarray(np.asarray(value))
    return [str(array.dtype), list(array.shape), digest(array.tobytes())]


def answer_of(example: Example) -> str:
    """The reference answer in plain text."""
    if "messages" in example and "answer" not in example:
        return str(example["messages"][-1]["content"])
    return str(example.get("answer", example.get("text", example.get("label", ""))))


def with_answer(example: Example, answer: str) -> Example:
    """The same question, conversation or prefix with another answer, and nothing else of the example."""
    if "messages" in example and "answer" not in example:
        *before, last = example["messages"]
        return {"messages": [*before, {**last, "content": answer}]}
    if "prefix" in example and "answer" not in example:
        return {"prefix": example["prefix"], "text": answer}
    return {"question": example.get("question", ""), "answer": answer}


def question_of(example: Example) -> str:
    """The question, or what precedes a text, in plain text; empty where nothing does."""
    if "messages" in example and "question" not in example:
        return "\n".join(str(m["content"]) for m in example["messages"][:-1])
    return str(example.get("question", example.get("prefix", "")))
