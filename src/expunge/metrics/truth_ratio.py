"""Truth ratio, as in the released code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.arrays import mean_nll, only
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured

CARD = MetricCard(
    "Truth ratio",
    paper="arXiv:2401.06121",
    equation="1 (as in the released code)",
    side="forgetting",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    needs={"split": {"nll", "variants"}},
    splits=("forget", "retain", "real_authors", "world_facts"),
    means="Whether the model distinguishes the truth from near falsehoods: on the forget set 1 means that "
    "it cannot, elsewhere 1 means that it can; it says nothing about what the model writes.",
)

Losses = Sequence[np.ndarray] | np.ndarray


def truth_ratio_from(paraphrased: Losses, perturbed: Losses) -> np.ndarray:
    """R = exp(loss of the paraphrase - mean loss of the perturbed); above 1 falsehood is preferred.

    N rows of losses in nats per token (several variants are averaged), or [N]. It is the ratio of
    geometric means of p^(1/|a|), as in TOFU's code and published files; the paper's text has an
    arithmetic mean (`truth_ratio_paper`). Exponents are cut at +-300.
    """
    pairs = zip(paraphrased, perturbed, strict=True)
    gaps = [np.mean(true) - np.mean(false) for true, false in pairs]
    return np.asarray(np.exp(np.clip(gaps, -300, 300)))


def as_score(ratios: np.ndarray, split: str) -> np.ndarray:
    """The values that a split's mean is taken of: min(R, 1/R) on forget, max(0, 1 - R) elsewhere (TOFU, 2.2)."""
    closeness = np.minimum(ratios, 1 / ratios) if split == "forget" else np.maximum(0.0, 1 - ratios)
    return np.asanyarray(closeness)


def ratios(readout: Readout, formula: Callable[[Losses, Losses], np.ndarray] = truth_ratio_from) -> np.ndarray:
    """[N] raw truth ratios; masked where an example lacks variants.

    Where NO example of a split has a paraphrase, the answer itself is used, as TOFU does for real
    authors and world facts.
    """
    true, false = readout.paraphrased or [], readout.perturbed or []
    if not any(len(row) for row in false):
        raise NotMeasured("no example has a perturbed_answer")
    if not any(len(row) for row in true):
        true = [np.array([loss]) for loss in np.ma.getdata(mean_nll(readout))]
    counts = np.array([len(a) > 0 and len(b) > 0 for a, b in zip(true, false, strict=True)])
    if not counts.any():
        raise NotMeasured("no example has both a paraphrased_answer and a perturbed_answer")
    kept = np.flatnonzero(counts)
    found = np.ones(len(counts))
    found[kept] = formula([true[i] for i in kept], [false[i] for i in kept])
    return only(found, counts)


def truth_ratio() -> Metric:
    """Mean of min(R, 1/R) on forget, of max(0, 1 - R) elsewhere, with R from `truth_ratio_from`."""

    def values(split: Readout) -> np.ndarray:
        return as_score(ratios(split), split.split)

    return values
