"""Utility: up to three views of the data that must stay, combined."""

from __future__ import annotations

import contextlib

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation import intervals
from expunge.evaluation.arrays import mean_nll, rouge_column
from expunge.evaluation.groups import count_groups, groups_of
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured, has
from expunge.metrics.probability import probability_from
from expunge.metrics.truth_ratio import as_score, ratios

CARD = MetricCard(
    "Utility",
    paper="arXiv:2401.06121",
    equation="section 2.2.2",
    side="utility",
    better="higher",
    unit="share",
    capabilities=("tokens",),
    aggregate="harmonic",
    needs={"split": {"nll", "generation?", "variants?"}},
    splits=("retain",),
    means="A single figure for what the model still knows of the data that must stay; compare it only where its "
    "parts are the same, and look at them where it falls.",
)


def parts(readout: Readout) -> dict[str, np.ndarray]:
    """Name -> [N] values of probability, ROUGE-L recall and truth ratio max(0, 1 - R), where available."""
    found = {"probability": probability_from(mean_nll(readout))}
    if has(readout, "generation"):
        found["ROUGE-L recall"] = rouge_column(readout, 0)
    if has(readout, "variants"):
        with contextlib.suppress(NotMeasured):
            found["truth ratio"] = as_score(ratios(readout), "retain")
    return {name: x for name, x in found.items() if np.ma.count(x)}


def utility() -> Metric:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio on retain, of those available.

    The truth ratio counts as max(0, 1 - R), as in TOFU's model utility. The score names its parts.
    BCa bootstrap over the examples; clustered where they have groups.
    """

    def figure(split: Readout) -> Figure:
        had = parts(split)
        if not had:
            raise NotMeasured("no answer has a token")
        groups = groups_of(split.examples)
        found = intervals.harmonic(np.ma.stack(list(had.values()), axis=1), groups=[groups])
        why = "harmonic mean of " + ", ".join(had)
        return Figure(*found, n=len(split), why=why, groups=count_groups(groups))

    return figure
