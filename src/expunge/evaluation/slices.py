"""Slices of errors: groups of rows that a classifier gets wrong alike, and what their rows have in common.

Suffixes: N rows, D features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.cluster import KMeans

from expunge.core.card import Example

Attribute = tuple[str, Any]
"""(field, value), or (field, one of the words of a text)."""
WORDS = 4
"""Words from which a text is described by single words, not by the whole."""
LEAST = 5
"""Errors that make a slice."""
CHANCE = 0.01
"""Chance, over all attributes that were tried, below which one describes a slice."""
LEFT_OUT = frozenset({"label", "poisoned"})


@dataclass(frozen=True)
class Slice:
    """Errors that lie together. places: their rows; predicted: the class that most are taken for.

    described: attributes that these errors have more often than rows of the same labels that are read rightly, the
    clearest first, each with its z value.
    """

    places: np.ndarray
    predicted: int
    described: list[tuple[Attribute, float]]

    @property
    def clarity(self) -> float:
        """The z value of the clearest attribute, 0 without one."""
        return self.described[0][1] if self.described else 0.0


def attributes_of(row: Example) -> set[Attribute]:
    """The attributes of a row: short values of its fields, and the words of long texts; no label and no array."""
    found: set[Attribute] = set()
    for field, value in row.items():
        if field in LEFT_OUT or not isinstance(value, str | bool | int):
            continue
        words = re.findall(r"\w+", value.casefold()) if isinstance(value, str) else []
        found |= {(field, word) for word in words} if len(words) >= WORDS else {(field, value)}
    return found


def find_slices(
    rows: Sequence[Example],
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    predicted_N: np.ndarray,
    *,
    clusters: int = 10,
    seed: int = 0,
) -> list[Slice]:
    """Slices of the errors, the most clearly described first, then the largest.

    Errors are clustered by k-means on their standardised features, as LADDER does (arXiv:2408.07832); a cluster below
    five errors is no slice. An attribute describes a slice where the Cochran-Mantel-Haenszel test, by label, finds it
    more often than among rows that are read rightly, at .01 over all attributes tried.
    """
    wrong = np.flatnonzero(predicted_N != labels_N)
    right = np.flatnonzero(predicted_N == labels_N)
    count = min(clusters, len(wrong) // LEAST)
    if count < 1:
        return []
    centred_ND = features_ND[wrong] - features_ND[wrong].mean(0)
    scaled_ND = centred_ND / np.maximum(centred_ND.std(0), 1e-12)
    cluster_N = KMeans(count, n_init=10, random_state=seed).fit_predict(scaled_ND)
    attributes = [attributes_of(row) for row in rows]
    slices = []
    for number in range(count):
        places = wrong[cluster_N == number]
        if len(places) >= LEAST:
            predicted = Counter(predicted_N[places].tolist()).most_common(1)[0][0]
            slices.append(Slice(places, int(predicted), describe(attributes, labels_N, places, right)))
    return sorted(slices, key=lambda one: (-one.clarity, -len(one.places)))


def describe(
    attributes: Sequence[set[Attribute]], labels_N: np.ndarray, places: np.ndarray, others: np.ndarray
) -> list[tuple[Attribute, float]]:
    """The attributes that are over-represented at `places` beside `others` of the same labels, with their z values."""
    tried = sorted(set().union(*(attributes[i] for i in places)), key=str)
    limit = float(norm.isf(CHANCE / max(1, len(tried))))
    has = {one: np.array([one in own for own in attributes]) for one in tried}
    scores = {one: stratified_z(has_N, labels_N, places, others) for one, has_N in has.items()}
    return sorted(((one, z) for one, z in scores.items() if z > limit), key=lambda pair: -pair[1])


def stratified_z(has_N: np.ndarray, labels_N: np.ndarray, places: np.ndarray, others: np.ndarray) -> float:
    """The signed root of the Cochran-Mantel-Haenszel statistic: > 0 where `places` have it more often, by label.

    0 where no label has rows on both sides of which some have it and some not.
    """
    above, variance = 0.0, 0.0
    for label in np.unique(labels_N[places]):
        ours, theirs = (has_N[side[labels_N[side] == label]] for side in (places, others))
        m, n = len(ours), len(theirs)
        total, with_it = m + n, int(ours.sum() + theirs.sum())
        if total > 1 and n:
            above += float(ours.sum()) - m * with_it / total
            variance += m * n * with_it * (total - with_it) / (total**2 * (total - 1))
    return above / variance**0.5 if variance else 0.0


def taught_by(rows: Sequence[Example], labels_N: np.ndarray, one: Slice) -> np.ndarray:
    """The places of training rows that have the clearest attribute of a slice and the class that it is taken for."""
    (field, value), _ = one.described[0]
    has_N = np.array([(field, value) in attributes_of(row) for row in rows])
    return np.flatnonzero(has_N & (labels_N == one.predicted))


def summary(one: Slice, labels_N: np.ndarray) -> Mapping[str, Any]:
    """A slice for the result of `find`."""
    return {
        "errors": len(one.places),
        "predicted": one.predicted,
        "labels": {str(label): count for label, count in sorted(Counter(labels_N[one.places].tolist()).items())},
        "described": [{"field": field, "value": value, "z": round(z, 2)} for (field, value), z in one.described],
    }
