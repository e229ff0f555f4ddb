"""A Witten-Bell n-gram model of answers: what anyone could guess of the next token from other answers alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from expunge.core.contracts import Example, Model
from expunge.data.batching import ROWS

START = -1
"""Stands before the first token of an answer."""


class Ngrams:
    """Counts of the patterns in answers, interpolated from the longest down to a uniform distribution.

    P(w | c) = (n(c, w) + t(c) P(w | c')) / (n(c) + t(c)), c' the context without its first token and t(c) the number
    of different tokens that follow c (Witten and Bell 1991). vocabulary: tokens that there are. order: tokens of
    a pattern at most, the one to guess included.
    """

    def __init__(self, answers: Sequence[Sequence[int]], vocabulary: int, order: int) -> None:
        self.vocabulary = vocabulary
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for answer in answers:
            tokens = [START] * (order - 1) + list(answer)
            for i in range(order - 1, len(tokens)):
                for k, counts in enumerate(self.counts):
                    counts[tuple(tokens[i - k : i])][tokens[i]] += 1

    def log_probabilities(self, answer: Sequence[int]) -> Tensor:
        """[T, V] log-probabilities before each token of an answer."""
        width = len(self.counts) - 1
        tokens = [START] * width + list(answer)
        return torch.stack([self._distribution(tokens[i : i + width]) for i in range(len(answer))]).log().float()

    def _distribution(self, context: Sequence[int]) -> Tensor:
        p_V = torch.full((self.vocabulary,), 1 / self.vocabulary, dtype=torch.float64)
        for k, counts in enumerate(self.counts):
            follow = counts.get(tuple(context[len(context) - k :]))
            if not follow:
                break
            seen, kinds = follow.total(), len(follow)
            p_V *= kinds / (seen + kinds)
            p_V[list(follow)] += torch.tensor(list(follow.values()), dtype=torch.float64) / (seen + kinds)
        return p_V


def answer_tokens(model: Model, rows: Sequence[Example]) -> list[list[int]]:
    """The counted tokens of each row's answer."""
    found = []
    for start in range(0, len(rows), ROWS):
        batch = model.collate(rows[start : start + ROWS])
        found += [labels[mask].tolist() for labels, mask in zip(batch.labels_BT, batch.mask_BT, strict=True)]
    return found
