"""Corpus rows of similar content, by TF-IDF or by a model's hidden states: a batch of them at a time."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.data.texts import text_of
from expunge.evaluation.reading import read
from expunge.models.family import family
from expunge.models.open import open_model
from expunge.workflows._likeness import Pair, normalise_text

READ = 2048
"""Rows of a corpus whose hidden states are read at a time."""


class Nearest:
    """The `top` largest cosines of each forget row that are at least `least`."""

    def __init__(self, rows: int, least: float, top: int) -> None:
        self._least, self._top = least, top
        self._best: list[list[tuple[float, int]]] = [[] for _ in range(rows)]
        self._last = np.full(rows, -np.inf)
        """[rows] what a cosine must exceed: the smallest of those that are held, where `top` are."""

    def add(self, first: int, cosines: np.ndarray) -> None:
        """Consider the next batch of the corpus: [rows, batch], the first of them at this place."""
        wanted = (cosines >= self._least) & (cosines > self._last[:, None])
        for i in np.flatnonzero(wanted.any(axis=1)).tolist():
            order = [j for j in np.argsort(-cosines[i], kind="stable")[: self._top].tolist() if wanted[i, j]]
            best = [*self._best[i], *((float(cosines[i, j]), first + j) for j in order)]
            self._best[i] = sorted(best, key=lambda one: (-one[0], one[1]))[: self._top]
            if len(self._best[i]) == self._top:
                self._last[i] = self._best[i][-1][0]

    def pairs(self) -> dict[Pair, float]:
        """Pair -> cosine."""
        return {(i, j): min(1.0, cosine) for i, best in enumerate(self._best) for cosine, j in best}


class WordVectors:
    """TF-IDF vectors of words (bigrams would hide a paraphrase). Memory holds one number per word of the corpus."""

    def __init__(self, ours: Sequence[str]) -> None:
        self._ours = ours
        self._holders: Counter[str] = Counter()
        self._count = 0
        for text in ours:
            self.count(text)

    def count(self, text: str) -> None:
        """Count a text whose words make up the vocabulary."""
        self._holders.update(set(normalise_text(text).split()))
        self._count += 1

    def fit(self) -> Callable[[Sequence[str]], np.ndarray]:
        """A function from texts to their [ours, texts] cosines, once all texts are counted."""
        if not self._holders:  # no text has a word
            return lambda texts: np.zeros((len(self._ours), len(texts)))
        words = sorted(self._holders)
        vectorizer = TfidfVectorizer(
            tokenizer=lambda text: normalise_text(text).split(),
            token_pattern=None,
            sublinear_tf=True,
            lowercase=False,
            vocabulary=words,
        )
        holders = np.array([self._holders[word] for word in words], dtype=np.float64)
        vectorizer.idf_ = np.log((self._count + 1) / (holders + 1)) + 1
        ours = vectorizer.transform(self._ours)
        return lambda texts: np.asarray((ours @ vectorizer.transform(texts).T).todense())


def hidden_cosines(
    model: str, ours: Sequence[Example], theirs: Sequence[Example], trust_code: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """(place, [ours, batch] cosines) of mean last hidden states, centred on the corpus: all texts share a direction.

    The states lie in a temporary file until all are read, which their centre takes.
    """
    opened = open_model(model, trust_code)
    if ("text",) not in family(opened.family).example_forms:
        raise BadInput.of("--model", model, "is not a language model", "give one, or leave --model out for TF-IDF")
    last, subject = f"pooled:{opened.blocks[len(opened.blocks) - 1]}", opened.fingerprint()

    def states(rows: Iterable[Example]) -> Any:
        texts = [{"text": text_of(row)} for row in rows]
        found = read(opened, "texts", texts, {last}, fingerprint=subject, cache=False).pooled
        return np.asarray(found[last.partition(":")[2]], dtype=np.float32)

    one = states(ours)
    with tempfile.TemporaryFile() as file:
        total = np.zeros(one.shape[1])
        for _, rows in batches(theirs, READ):
            two = states(rows)
            total += two.sum(axis=0, dtype=np.float64)
            file.write(two.tobytes())
        file.seek(0)
        centre = total / max(1, len(theirs))
        one = _unit(one - centre)
        for place in range(0, len(theirs), READ):
            two = np.frombuffer(file.read(READ * one.shape[1] * 4), np.float32).reshape(-1, one.shape[1])
            yield place, one @ _unit(two - centre).T


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def batches(rows: Iterable[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    """(place of the first, rows) of each batch, in order."""
    left = iter(rows)
    for place in itertools.count(0, size):
        if not (batch := list(itertools.islice(left, size))):
            return
        yield place, batch
