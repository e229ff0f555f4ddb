"""A linear classifier with a permutation test: a kernel (TF-IDF, or hidden states), ridge regression, permutations."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np

from expunge.core.words import UNSPACED
from expunge.evaluation.intervals import Interval

FOLDS, REPEATS, PERMUTATIONS = 5, 5, 500
RIDGE = 1.0
"""Added to the kernel's diagonal; rows of TF-IDF have length 1."""


@functools.lru_cache(maxsize=2)
def text_auc(texts: tuple[str, ...], members: int, groups: tuple[Hashable, ...]) -> Interval | None:
    """Cross-validated AUC of the first `members` texts against the others; None without words.

    `groups` and the interval: see `cross_validated_auc`.
    """
    kernel = _kernel(texts)
    return None if kernel is None else cross_validated_auc(kernel, members, groups)


def cross_validated_auc(kernel: np.ndarray, members: int, groups: Sequence[Hashable]) -> Interval:
    """Cross-validated AUC of a ridge that tells the first `members` rows of a [N, N] kernel from the others.

    `groups` names what is held out together (see `_permuted_aucs`). The interval is as wide as the AUCs of the same
    procedure under 500 random assignments of the sides: folds share most of their training data, so DeLong's would be
    far too narrow (10 % false alarms where 2.5 % were meant).
    """
    aucs = _permuted_aucs(kernel, members, groups)
    value, chance = float(aucs[0]), aucs[1:] - 0.5
    low, high = (value - float(np.quantile(chance, q)) for q in (0.975, 0.025))
    return Interval(value, min(value, max(0.0, low)), max(value, min(1.0, high)))


def permutation_p(kernel: np.ndarray, members: int, groups: Sequence[Hashable]) -> float:
    """One-sided p-value of the AUC of `cross_validated_auc`: how often random sides give as large a one."""
    aucs = _permuted_aucs(kernel, members, groups)
    return float((1 + (aucs[1:] >= aucs[0] - 1e-12).sum()) / len(aucs))


def _permuted_aucs(kernel: np.ndarray, members: int, groups: Sequence[Hashable]) -> np.ndarray:
    """[1 + P] the AUC, and those under random assignments of the sides.

    `groups` names what is held out together, and, where no group is on both sides, what is permuted
    together. Folds do not depend on the sides, and a ridge's solution is linear in them, so that all
    assignments cost one solution per fold.
    """
    draw = np.random.default_rng(0)
    _, group_N = np.unique([str(group) for group in groups], return_inverse=True)
    sides = np.column_stack([np.arange(len(kernel)) < members, _permutations(members, group_N, draw)])
    sides = sides.astype(float)
    scores = np.zeros_like(sides)
    for _ in range(REPEATS):
        places = draw.permutation(group_N.max() + 1) % min(FOLDS, group_N.max() + 1)
        for fold in range(places.max() + 1):
            test = places[group_N] == fold
            scores[test] += _held_out(kernel, sides, test)
    return _aucs(scores, sides)


def _kernel(texts: tuple[str, ...]) -> np.ndarray | None:
    """[N, N] cosines of TF-IDF rows over words and pairs of words."""
    # scikit-learn takes a second to import, and every plan imports this file.
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=rf"[{UNSPACED}]|[^\W{UNSPACED}]+", sublinear_tf=True)
    try:
        rows = words.fit_transform(texts)
    except ValueError:  # an empty vocabulary
        return None
    return np.asarray((rows @ rows.T).toarray())


def _permutations(members: int, group_N: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """[N, P] random assignments of the sides, by whole groups where each group is on one side."""
    member_N = np.arange(len(group_N)) < members
    counts = np.bincount(group_N, weights=member_N) / np.bincount(group_N)
    if not np.isin(counts, (0.0, 1.0)).all():
        return np.stack([draw.permutation(member_N) for _ in range(PERMUTATIONS)], axis=1)
    return np.stack([draw.permutation(counts)[group_N] for _ in range(PERMUTATIONS)], axis=1)


def _held_out(kernel: np.ndarray, sides: np.ndarray, test: np.ndarray) -> np.ndarray:
    """[n, P] ranks in (0, 1), within the fold, of scores by a ridge that was fitted on the other folds.

    Ranks, since each fold has its own offset.
    """
    from scipy.linalg import solve

    train = ~test
    inner = kernel[np.ix_(train, train)] + RIDGE * np.eye(int(train.sum()))
    targets = sides[train] - sides[train].mean(axis=0)
    scores = solve(inner, kernel[np.ix_(train, test)], assume_a="pos").T @ targets
    return np.asarray((_ranks(scores) - 0.5) / int(test.sum()))


def _aucs(scores: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """[P] AUC of each column's scores for its own assignment; 0.5 where one side is empty."""
    m = sides.sum(axis=0)
    n = len(sides) - m
    wins = (_ranks(scores) * sides).sum(axis=0) - m * (m + 1) / 2
    return np.where((m > 0) & (n > 0), wins / np.maximum(1, m * n), 0.5)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """[N, P] ranks within each column, from 1; equal scores share the mean of theirs."""
    from scipy.stats import rankdata  # half a second, and every plan imports this file

    return np.asarray(rankdata(scores.round(12), axis=0))
