"""Compare examples by content: the same fact in another form is the same example."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.core.files import digest
from expunge.data.examples import form, identity
from expunge.data.rows import take


def content_key(example: Example) -> str:
    """SHA-256 of the content of an example: its words and label, or the numbers of its array with its label or
    caption.

    Question and answer, a chat of one turn, and a text that joins them have one key. Unicode form, letter case, white
    space, marks of width zero and a chat's system prompt make no difference. `identity` distinguishes all of these: it
    names an example in manifests, caches and seeds.
    """
    keys = form(example)
    if keys is None:
        return identity(example)
    label = [int(example["label"])] if "label" in keys else []
    for key in ("image", "features"):
        if key in keys:
            caption = [canonical_text(str(example["text"]))] if "text" in keys else []
            return digest(["array", *_numbers(example[key]), *label, *caption])
    return digest([" ".join(canonical_text(text) for text in _texts(example, keys)).strip(), *label])


def _texts(example: Example, keys: tuple[str, ...]) -> list[str]:
    """The texts of an example in reading order, without a system prompt."""
    if "messages" in keys:
        turns: Sequence[Mapping[str, Any]] = example["messages"]
        return [str(turn["content"]) for turn in turns if turn["role"] not in ("system", "developer")]
    prefix = [str(example["prefix"])] if keys == ("text",) and example.get("prefix") else []
    return [*prefix, *(str(example[key]) for key in keys if key != "label")]


def canonical_text(text: str) -> str:
    """The text under NFKC, case-folded, each run of white space as one blank, without marks of width zero."""
    found = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not found.isascii():
        found = "".join(sign for sign in found if unicodedata.category(sign) != "Cf")
    return " ".join(found.split())


def _numbers(value: Any) -> list[Any]:
    """Shape and digest of an array, whatever type of number or nested list it was given as."""
    array = np.ascontiguousarray(np.asarray(value), dtype=np.float32)
    return [list(array.shape), digest(array.tobytes())]


def content_keys(rows: Sequence[Example]) -> set[str]:
    """The keys of all rows."""
    return {content_key(row) for row in rows}


def content_digests(rows: Iterable[Example]) -> np.ndarray:
    """[N] the 32 bytes of each row's key: in the order of the keys, and a quarter of their memory."""
    return np.fromiter((bytes.fromhex(content_key(row)) for row in rows), dtype="S32")


def distinct(rows: Sequence[Example]) -> Sequence[Example]:
    """The rows without those whose content occurred earlier: ten copies of a fact are one example."""
    _, first = np.unique(content_digests(rows), return_index=True)
    return take(rows, np.sort(first))


def without(rows: Sequence[Example], others: Sequence[Example]) -> Sequence[Example]:
    """The rows whose content is not among the others'."""
    gone = content_keys(others)
    return take(rows, [i for i, row in enumerate(rows) if content_key(row) not in gone])
