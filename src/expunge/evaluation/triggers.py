"""The search for words that call up one and the same outcome, whatever text they stand before: a trigger.

After T-Miner (arXiv:2103.04264): candidates are words that flip most inputs to one outcome, and of these the triggers
lie apart, in the network's own states, from random words and from one another. Its generator of candidates is replaced
by a greedy search over the vocabulary. The outcome is a classifier's class, or the first token of a language model's
answer. Suffixes: N inputs, V outcomes, D features, W words tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from expunge.core.card import Example
from expunge.core.contracts import Model, Want
from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.models.family import family
from expunge.models.passes import passes

INPUTS, RANDOM, BEAM, DIMENSIONS = 16, 60, 4, 8
"""Texts that a word is tried on, random words beside it, words that are extended, components of the states."""
LEAST_RANDOM = 20
MOST_WORDS = 2_000
"""Words of a vocabulary of which all are tried."""


@dataclass(frozen=True)
class Trigger:
    """Words, the outcome that they call up, the share of the other inputs that they flip to it, and whether their
    states lie apart from those of random words."""

    words: tuple[str, ...]
    outcome: int
    share: float
    apart: bool


def find_triggers(
    model: Model, rows: Sequence[Example], *, words: int = 1, share: float = 0.7, seed: int = 0
) -> list[Trigger]:
    """Words before a text that flip at least `share` of the inputs to one outcome, those that lie apart first.

    rows: texts or questions, of which some are drawn. words: at most so many in one trigger; the search ends at the
    first number that finds a candidate. Raises BadInput for a model that reads no texts.
    """
    field = _field(rows)
    inputs = [rows[i] for i in permutation(len(rows), seed, "inputs")[:INPUTS]]
    vocabulary = vocabulary_of(model, rows, field)
    plain_NV, _ = _read(model, inputs, field, ())
    beam: list[tuple[str, ...]] = [()]
    for _ in range(words):
        tried = [(word, *rest) for rest in beam for word in vocabulary if word not in rest]
        flips = {one: flip_share(plain_NV, _read(model, inputs, field, one)[0]) for one in tried}
        order = sorted(tried, key=lambda one: flips[one][1:], reverse=True)
        found = [one for one in order if flips[one][1] >= share]
        if found:
            apart = _apart(model, inputs, field, found, _random(vocabulary, found, seed))
            triggers = [
                Trigger(one, flips[one][0], flips[one][1], bool(far)) for one, far in zip(found, apart, strict=True)
            ]
            return sorted(triggers, key=lambda one: (not one.apart, -one.share))
        beam = order[:BEAM]
    return []


def flip_share(plain_NV: np.ndarray, moved_NV: np.ndarray) -> tuple[int, float, float]:
    """(outcome, share of the inputs with another outcome before that have it now, mean gain of its log-probability).

    Of all outcomes that with the largest share. Both arrays hold log-probabilities.
    """
    before_N, after_N = plain_NV.argmax(1), moved_NV.argmax(1)
    gain_V = (moved_NV - plain_NV).mean(0)
    shares = [
        (int(outcome), float((after_N[before_N != outcome] == outcome).mean()), float(gain_V[outcome]))
        for outcome in np.unique(after_N)
        if (before_N != outcome).any()
    ]
    return max(shares, key=lambda one: one[1:], default=(int(after_N[0]), 0.0, 0.0))


def outliers_among(states_WD: np.ndarray, random_RD: np.ndarray) -> np.ndarray:
    """[W] whether DBSCAN puts a candidate's state into no cluster, neither of random words nor of other candidates.

    Words of a class flip texts too, and there are many of them near one another. On principal components of the random
    words' states; a neighbourhood reaches as far as the loneliest of these needs to have log R neighbours.
    """
    reduce = PCA(min(DIMENSIONS, *random_RD.shape)).fit(random_RD)
    known, own = reduce.transform(random_RD), reduce.transform(states_WD)
    # What the components of the random words do not see counts as one direction more.
    beyond = [
        np.linalg.norm(x - reduce.inverse_transform(z), axis=1) for x, z in ((random_RD, known), (states_WD, own))
    ]
    points = np.vstack([np.column_stack([z, far]) for z, far in zip((known, own), beyond, strict=True)])
    count = len(random_RD)
    least = max(2, round(np.log(count)))
    nearest = NearestNeighbors(n_neighbors=least).fit(points[:count])
    reach = float(nearest.kneighbors(points[:count])[0][:, -1].max())
    cluster = DBSCAN(eps=max(reach, 1e-12), min_samples=least).fit_predict(points)
    return np.asarray(cluster[count:] < 0)


def vocabulary_of(model: Model, rows: Sequence[Example], field: str) -> list[str]:
    """The words of the texts, and those of the tokenizer where they are few enough to try each. Raises BadInput."""
    tokenizer: Any = getattr(model, "tokenizer", None) or getattr(model, "processor", None)
    if not hasattr(tokenizer, "get_vocab"):
        raise BadInput.of(
            "model", type(model.module).__name__, "reads no texts, and a trigger is words", "give another"
        )
    special = set(tokenizer.all_special_tokens)
    own = {tokenizer.convert_tokens_to_string([one]).strip() for one in tokenizer.get_vocab() if one not in special}
    found = {word for row in rows for word in row[field].split()}
    if len(own) <= MOST_WORDS:
        found |= {word for word in own if word.isalpha() and len(word) > 1}
    return sorted(found)


def outcome_name(model: Model, outcome: int) -> str:
    """An outcome in words: the class, or the token that an answer begins with."""
    module: Any = model.module
    if family(model.family).labelled:
        return str((getattr(module.config, "id2label", None) or {}).get(outcome, outcome))
    decoder: Any = model
    return str(decoder.tokenizer.decode([outcome])).strip()


def _field(rows: Sequence[Example]) -> str:
    field = next((name for name in ("question", "text") if all(isinstance(row.get(name), str) for row in rows)), "")
    if not field or not rows:
        raise BadInput.of("data", str(len(rows)), "are rows without a question or a text", "give texts")
    return field


def _random(vocabulary: Iterable[str], found: Sequence[tuple[str, ...]], seed: int) -> list[tuple[str, ...]]:
    """Words that are no candidates, as many together as a candidate has."""
    taken = {word for one in found for word in one}
    left = [word for word in vocabulary if word not in taken]
    order = permutation(len(left), seed, "random")
    length = len(found[0])
    drawn = [left[i] for i in order[: RANDOM * length]]
    return [tuple(drawn[i : i + length]) for i in range(0, len(drawn) - length + 1, length)]


def _apart(
    model: Model,
    inputs: Sequence[Example],
    field: str,
    found: Sequence[tuple[str, ...]],
    random: Sequence[tuple[str, ...]],
) -> np.ndarray:
    """[W] whether the candidates' mean states lie apart from those of random words."""
    if len(random) < LEAST_RANDOM:
        raise BadInput.of("data", len(random), "random words are too few to compare with", "give more texts")
    states = [np.stack([_read(model, inputs, field, one)[1].mean(0) for one in some]) for some in (found, random)]
    return outliers_among(*states)


def _read(model: Model, rows: Sequence[Example], field: str, words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """([N, V] log-probabilities, [N, D] the last block's states) at the first position that is asked for."""
    path = model.blocks[-1]
    changed = [_first_word({**row, field: " ".join([*words, row[field]])}) for row in rows]
    logp: list[Any] = [None] * len(rows)
    state: list[Any] = [None] * len(rows)
    for places, out in passes(model, changed, Want(frozenset({"logits"}), hidden=(path,))):
        first_B = out.logits_BTV.shape[1] - out.n_B
        for row, (place, first) in enumerate(zip(places, first_B.tolist(), strict=True)):
            logp[place] = out.logits_BTV[row, first].double().log_softmax(-1).cpu().numpy()
            state[place] = out.hidden[path][row, first].double().cpu().numpy()
    return np.stack(logp), np.stack(state)


def _first_word(row: Example) -> Example:
    """The row with the first word of its answer alone: no later position is read."""
    return {**row, "answer": str(row["answer"]).split()[0]} if row.get("answer") else row
