"""Texts that repeat a forget row: in the same words, nearly so, or by a rare name. Memory grows with the forget set."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

Pair = tuple[int, int]
"""(forget row, corpus row), counted from 0."""

SHINGLE, PERMUTATIONS = 5, 128
"""Characters per shingle; hash functions of the MinHash sketch."""
LONGEST_NAME = 4
"""Most words of a name."""
RARE = 0.5
"""Least score of a rare name: sqrt(N) of N rows hold it."""
BACK = 100
"""Characters before a word that are searched for the end of a sentence."""
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
NAME = re.compile(r"[^\W\d_a-z][^\W_]*(?:['’-][^\W_]+)*")
"""A word that begins with a capital (or a letter without case)."""
OPENS = re.compile(r"(?:^|[.?!:;\n])[\s\"'“”‘’(\[*-]*$")
"""The text before the first word of a sentence."""


def normalise_text(text: str) -> str:
    """The words in lower case with single spaces: the text without case, punctuation and layout."""
    return " ".join(WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


class SameWords:
    """Forget texts by their words, whatever their case, punctuation and spaces."""

    def __init__(self, ours: Sequence[str]) -> None:
        self._places: dict[str, list[int]] = {}
        for i, text in enumerate(ours):
            self._places.setdefault(normalise_text(text) or text, []).append(i)

    def find(self, text: str) -> list[int]:
        """The forget texts of the same words as this one."""
        return self._places.get(normalise_text(text) or text, [])


class NearDuplicates:
    """Forget texts by their character shingles.

    MinHash finds the candidates without comparing all pairs (Broder 1997); the similarity is then exact. A text that
    has too few shingles of any forget text is not sketched: no similarity could reach `least`.
    """

    def __init__(self, ours: Sequence[str], least: float) -> None:
        from datasketch import MinHash, MinHashLSH  # an optional extra

        # The candidates' threshold is lower than `least`: the sketch errs by about 1/sqrt(permutations).
        self._index = MinHashLSH(threshold=max(0.1, least - 0.15), num_perm=PERMUTATIONS, weights=(0.2, 0.8))
        self._blank = MinHash(num_perm=PERMUTATIONS, seed=1)
        self._shingles = [_shingles(text) for text in ours]
        self._any = set().union(*self._shingles)
        self._least = least
        for i, parts in enumerate(self._shingles):
            self._index.insert(i, self._sketch(parts))

    def find(self, text: str) -> dict[int, float]:
        """Forget text -> its Jaccard similarity with this one, where that is at least `least`."""
        parts = _shingles(text)
        if len(parts & self._any) < self._least * len(parts) - 1e-9:
            return {}
        found = {}
        for i in self._index.query(self._sketch(parts)):
            other = self._shingles[i]
            similarity = len(parts & other) / len(parts | other)
            if similarity >= self._least:
                found[i] = similarity
        return found

    def _sketch(self, parts: set[bytes]) -> Any:
        minhash = self._blank.copy()
        minhash.update_batch(sorted(parts))
        return minhash


def _shingles(text: str) -> set[bytes]:
    plain = f" {normalise_text(text) or text} "
    return {plain[k : k + SHINGLE].encode() for k in range(max(1, len(plain) - SHINGLE + 1))}


class NameWords:
    """Words of the forget texts that are capitalised inside sentences more often than not, in all texts that count.

    The first word of a sentence is always capitalised and does not count.
    """

    def __init__(self, ours: Sequence[str]) -> None:
        self._inside = dict.fromkeys((_bare(word).casefold() for text in ours for word in WORD.findall(text)), 0)
        for text in ours:
            self.count(text)

    def count(self, text: str) -> None:
        """Count the words of a text."""
        for match in WORD.finditer(text):
            lower = match[0][:1].islower()
            word = (match[0] if lower else _bare(match[0])).casefold()
            if word not in self._inside:
                continue
            if lower:
                self._inside[word] -= 1
            elif NAME.fullmatch(match[0]) and not OPENS.search(text, max(0, match.start() - BACK), match.start()):
                self._inside[word] += 1

    def words(self) -> set[str]:
        """Those words, in lower case."""
        return {word for word, count in self._inside.items() if count > 0 and len(word) > 1}


class SharedNames:
    """Rare names of the forget texts that corpus texts share.

    A name is a run of capitalised words, or a part of one. Its score is log(N / df) / log N for N corpus rows, df of
    which contain it: 1 for a single row, 0.5 for sqrt(N) rows. A name with a lower score does not count.
    """

    def __init__(self, ours: Sequence[str], words: set[str], corpus: int) -> None:
        self._words = words
        self._names = [_names(text, words) for text in ours]
        self._holders: dict[str, list[int]] = {name: [] for names in self._names for name in names}
        self._scale = math.log(max(2, corpus))
        self._most = math.isqrt(max(2, corpus)) + 1
        """Rows that are remembered of a name: no rare one has more."""

    def add(self, place: int, text: str) -> None:
        """Note which of the names the next corpus text holds."""
        for name in _names(text, self._words):
            holders = self._holders.get(name)
            if holders is not None and len(holders) <= self._most:
                holders.append(place)

    def pairs(self) -> dict[Pair, tuple[float, str]]:
        """Pair -> score and name."""
        found: dict[Pair, tuple[float, str]] = {}
        for i, names in enumerate(self._names):
            for name, shown in sorted(names.items()):
                rows = self._holders[name]
                score = 1 - math.log(len(rows)) / self._scale if rows else 0.0
                if score >= RARE:
                    for j in rows:
                        found[i, j] = max(found.get((i, j), (0.0, "")), (score, shown), key=lambda s: (s[0], len(s[1])))
        return found


def _bare(word: str) -> str:
    return re.sub("['’][sS]$", "", word)


def _names(text: str, words: set[str]) -> dict[str, str]:
    """Runs of capitalised name words and their parts, up to LONGEST_NAME words: in lower case -> as written."""
    found: dict[str, str] = {}
    run: list[str] = []
    last = 0
    for match in (*WORD.finditer(text), None):
        part = _bare(match[0]) if match else ""
        if (
            match is None
            or part.casefold() not in words
            or not NAME.fullmatch(part)
            or text[last : match.start()].strip()
        ):
            found |= _parts(run)
            run = []
        if match is not None:
            last = match.end()
            if part.casefold() in words and NAME.fullmatch(part):
                run.append(part)
    return found


def _parts(run: Sequence[str]) -> dict[str, str]:
    parts = (
        " ".join(run[k : k + length]) for length in range(1, LONGEST_NAME + 1) for k in range(len(run) - length + 1)
    )
    return {part.casefold(): part for part in parts}
