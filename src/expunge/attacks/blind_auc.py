"""The blind baseline: membership from the texts alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from expunge.attacks.shared.linear_classifier import text_auc
from expunge.attacks.shared.membership import whole_text
from expunge.core.card import AttackCard, Example
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured

CARD = AttackCard(
    "Blind baseline",
    paper="arXiv:2406.16201",
    adversary="the texts alone, without the model",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("tokens",),
    needs={"forget": {"nll"}, "holdout": {"nll"}},
    means="How well forget and holdout can be told apart without any model; where this beats 0.5 "
    "the splits differ by themselves, and no membership figure can be read as memory.",
)

KEYS = ("group", "author")
MAX_TEXTS = 500
"""Texts per side; more are sampled."""


def blind_auc() -> Metric:
    """Cross-validated AUC of a classifier (TF-IDF, ridge) that sees only the texts and no model.

    It is the same for every model (Das et al. 2024). Where the examples carry a `group` or an
    `author`, whole groups are held out: otherwise the classifier learns the names of the forget
    set's people from some of their examples and finds them in the others, which says nothing about
    how the splits differ. With fewer than two groups on a side it is not measured. The interval comes
    from permutations of the sides (`linear_classifier`). An AUC below 0.5 is reported as it is:
    max(AUC, 1 - AUC) would lie above 0.5 by chance alone.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        ours, theirs = _sample(forget.examples), _sample(holdout.examples)
        both = [*ours, *theirs]
        key = next((k for k in KEYS if all(x.get(k) is not None for x in both)), None)
        groups: list[Hashable] = list(range(len(both))) if key is None else [x[key] for x in both]
        if min(len(set(groups[: len(ours)])), len(set(groups[len(ours) :]))) < 2:
            raise NotMeasured(
                "a side has fewer than two groups (or texts): a classifier would learn a name, not how the splits "
                "differ"
            )
        found = text_auc(tuple(map(whole_text, both)), len(ours), tuple(groups))
        if found is None:
            raise NotMeasured("the texts hold no words")
        why = f"cross-validated by {key or 'example'}"
        return Figure(*found, n=len(both), why=why)

    return figure


def _sample(examples: Sequence[Example]) -> list[Example]:
    """At most MAX_TEXTS examples, drawn by a fixed seed."""
    if len(examples) <= MAX_TEXTS:
        return list(examples)
    chosen = np.random.default_rng(0).choice(len(examples), MAX_TEXTS, replace=False)
    return [examples[i] for i in np.sort(chosen)]
