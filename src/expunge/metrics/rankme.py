"""Effective rank of the embeddings."""

from __future__ import annotations

from expunge.core.card import MetricCard
from expunge.evaluation.hidden_states import effective_rank
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured
from expunge.metrics._embeddings import embeddings

CARD = MetricCard(
    "RankMe",
    paper="arXiv:2210.02885",
    equation="1",
    side="utility",
    better="higher",
    unit="count",
    capabilities=("embedding",),
    needs={"split": {"embedding"}},
    means="How many directions the embeddings of a split use, at most the number of examples and of dimensions. It "
    "falls where an encoder collapses, which its loss need not show. Compare it on the same examples alone.",
)


def rankme() -> Metric:
    """The effective rank of a split's embeddings (Garrido et al. 2023)."""

    def figure(split: Readout) -> Figure:
        if len(split) < 2:
            raise NotMeasured("fewer than 2 examples")
        return Figure(effective_rank(embeddings(split)), None, None, len(split))

    return figure
