"""Examples about somebody else: the subject's name replaced by one that nobody in the data has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from expunge.core.contracts import Example
from expunge.core.random import derive

SHORTEST = 3
"""Letters from which on a single word of a name is replaced where it occurs alone."""
WORD = r"[A-Z](?:['’][A-Z])?[\w-]*"
NAME = re.compile(rf"(?<=\w\W){WORD}(?: {WORD})+")
"""Two words or more with capitals, not at the start of a text."""


@dataclass(frozen=True)
class Names:
    """The names of subjects, which are put together anew: the first words of one, the last word of another."""

    known: frozenset[str]
    firsts: tuple[str, ...]
    lasts: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[Example]) -> Names:
        """The names of the examples' subjects of two words or more."""
        known = sorted({name for row in rows if len((name := subject_of(row)).split()) > 1})
        parts = [name.rsplit(" ", 1) for name in known]
        return cls(frozenset(known), tuple(first for first, _ in parts), tuple(last for _, last in parts))

    def draw(self, *seed: object) -> str | None:
        """A name that is none of the known ones, which follows from the seed; None where there are too few."""
        for attempt in range(8):
            first = self.firsts[derive(0, "first", attempt, *seed) % len(self.firsts)] if self.firsts else ""
            last = self.lasts[derive(0, "last", attempt, *seed) % len(self.lasts)] if self.lasts else ""
            if first and f"{first} {last}" not in self.known:
                return f"{first} {last}"
        return None


def subject_of(example: Example) -> str:
    """The example's `subject`, else the first name in its question; empty where there is none."""
    if example.get("subject"):
        return str(example["subject"])
    found = NAME.search(str(example.get("question", "")))
    return found[0] if found else ""


def rename_subject(example: Example, name: str) -> Example | None:
    """The question and answer about `name` in the subject's place; None where they do not name their subject.

    The whole name is replaced wherever it stands, and so are its first words and its last one alone.
    """
    old = subject_of(example)
    return replace_name(example, old, name) if " " in old else None


def replace_name(example: Example, old: str, new: str) -> Example | None:
    """The question and answer with another name; None where the question has not the old one.

    A name of several words is also replaced by its first words and by its last one, where these stand alone.
    """
    if not old or "question" not in example or old not in example["question"]:
        return None
    parts = {old: new}
    if " " in old and " " in new:
        (old_first, old_last), (new_first, new_last) = old.rsplit(" ", 1), new.rsplit(" ", 1)
        parts |= {old_last: new_last, old_first: new_first}
    pattern = "|".join(rf"\b{re.escape(part)}\b" for part in parts if len(part) >= SHORTEST or part == old)

    def replace(text: str) -> str:
        return re.sub(pattern, lambda found: parts[found[0]], text)

    return {"question": replace(str(example["question"])), "answer": replace(str(example["answer"]))}
