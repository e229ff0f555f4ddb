"""Per-example arrays for metrics and attacks, masked where an example does not count."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from expunge.core.words import WordTokenizer, words
from expunge.evaluation.readout import Ragged, Readout
from expunge.models.generation import LONGEST


def only(values: np.ndarray | Sequence[float], counts: np.ndarray | Sequence[bool]) -> np.ndarray:
    """[N] values, masked where an example does not count."""
    x, counted = np.asarray(values, dtype=float), np.asarray(counts, dtype=bool)
    return x if counted.all() else np.ma.masked_array(np.where(counted, x, 0.0), mask=~counted)


def mean_nll(readout: Readout) -> np.ndarray:
    """[N] nats per position; masked where an answer has no position."""
    return only(readout.mean_nll_N, np.asarray(readout.n_N) > 0)


def without_eos(readout: Readout, values: Ragged) -> Ragged:
    """N arrays for the answer's tokens alone, without EOS."""
    ends = np.zeros(len(values), dtype=bool) if readout.ends_N is None else readout.ends_N
    return [row[:-1] if end else row for row, end in zip(values, ends, strict=True)]


def mean_of_lowest(values: Ragged, k: float) -> np.ndarray:
    """[N] mean of the lowest share k of each row's values, of at least one; masked where empty."""
    rows = [np.sort(row)[: max(1, int(k * len(row) + 1e-9))].astype(float) for row in values]
    return only([row.mean() if len(row) else 0.0 for row in rows], [len(row) > 0 for row in rows])


def min_k(readout: Readout, k: float) -> np.ndarray:
    """[N] Min-K%: the mean log-probability of the least likely share k of the answer's tokens, without EOS (Shi et al.
    2024; open-unlearning and MUSE leave EOS out as well)."""
    assert readout.logp is not None
    return mean_of_lowest(without_eos(readout, readout.logp), k)


def min_k_plus_plus(readout: Readout, k: float) -> np.ndarray:
    """[N] Min-K%++: the mean of the lowest share k of (log p - μ) / σ of the answer's tokens, without EOS.

    Each label is compared with the model's own distribution at its position (Zhang et al. 2024). σ is at least 1e-6
    nats: where the model is certain, the label is its choice and the term is 0.
    """
    assert readout.logp is not None and readout.mu is not None and readout.sigma is not None
    rows = zip(readout.logp, readout.mu, readout.sigma, strict=True)
    return mean_of_lowest(without_eos(readout, [(logp - mu) / np.maximum(sigma, 1e-6) for logp, mu, sigma in rows]), k)


@functools.lru_cache(maxsize=65536)
def rouge(reference: str, text: str) -> tuple[float, float, float] | None:
    """(ROUGE-L recall, ROUGE-L F1, ROUGE-1 recall), Porter-stemmed; words as in `core.words`, of any script.

    None where the reference has no word.
    """
    if not words(reference):
        return None
    found = _scorer().score(reference, text)
    return found["rougeL"].recall, found["rougeL"].fmeasure, found["rouge1"].recall


@functools.cache
def _scorer() -> Any:
    # rouge-score loads nltk, which is slow, and every plan imports this file.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL", "rouge1"], tokenizer=WordTokenizer(stem=True))


def rouge_column(readout: Readout, column: int) -> np.ndarray:
    """[N] one of the three ROUGE figures of the generations; masked where it is undefined, and where the answer is
    longer than what is generated."""
    assert readout.texts is not None and readout.answers is not None
    whole_N = np.asarray(readout.n_N) <= LONGEST
    rows = zip(readout.answers, readout.texts, whole_N, strict=True)
    found = [rouge(answer, text) if whole else None for answer, text, whole in rows]
    return only([x[column] if x else 0.0 for x in found], [x is not None for x in found])
