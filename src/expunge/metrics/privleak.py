"""Privacy leakage against gold."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt, Le

from expunge.core.card import Example, MetricCard
from expunge.evaluation.arrays import min_k, without_eos
from expunge.evaluation.groups import count_groups, group_numbers
from expunge.evaluation.intervals import Z, auc, placements, spread_of_mean
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured

CARD = MetricCard(
    "PrivLeak",
    paper="arXiv:2407.06460",
    equation="3",
    side="privacy",
    better="gold",
    unit="ratio",
    capabilities=("tokens",),
    needs={"forget": {"logp"}, "holdout": {"logp"}, "gold.forget": {"logp"}, "gold.holdout": {"logp"}},
    means="In percent, how much membership stands out compared with gold: 0 is ideal, well below 0 the "
    "forget set still looks seen, well above 0 it looks over-forgotten; one attack only, with k = 0.4 "
    "where the AUCs of Min-K% have 0.2.",
)


def privleak_from(auc_model: float, auc_gold: float) -> float:
    """100 (s - r) / r in percent, s = 1 - AUC of the model, r = 1 - AUC of gold (AUC 1: seen)."""
    return 100 * ((1 - auc_model) / (1 - auc_gold) - 1)


def privleak(*, k: Annotated[float, Gt(0), Le(1)] = 0.4) -> Metric:
    """Relative distance of the Min-K% membership AUC from gold's, in percent (MUSE; k = 0.4, without EOS).

    The interval is the delta method's on the log of the ratio, with DeLong's covariance: model and
    gold score the same examples. Not measured where gold's AUC is 1.
    """

    def figure(forget: Readout, holdout: Readout, gold_forget: Readout, gold_holdout: Readout) -> Figure:
        ours = _scores(forget, k), _scores(holdout, k)
        golds = _scores(gold_forget, k), _scores(gold_holdout, k)
        groups = group_numbers(*(_examples_with_tokens(readout) for readout in (forget, holdout)))
        clusters = count_groups(*(groups or ()))
        s, r = (1 - float(placements(*pair)[0].mean()) for pair in (ours, golds))
        if r <= 0:
            raise NotMeasured("gold's own membership AUC is 1: there is nothing to compare with")
        found = privleak_from(1 - s, 1 - r)
        n = len(ours[0]) + len(ours[1])
        if s <= 0:  # the logarithm has no value here; the AUC's exact bound has
            return Figure(found, -100.0, privleak_from(auc(*ours).low, 1 - r), n, why=f"k = {k:g}", groups=clusters)
        leads = [
            np.asarray(a) / s - np.asarray(b) / r for a, b in zip(placements(*ours), placements(*golds), strict=True)
        ]
        half = Z * sum(spread_of_mean(x, g).variance for x, g in zip(leads, groups or (None, None), strict=True)) ** 0.5
        low, high = (100 * (s / r * float(np.exp(end)) - 1) for end in (-half, half))
        return Figure(found, low, high, n, why=f"k = {k:g}", groups=clusters)

    return figure


def _examples_with_tokens(readout: Readout) -> list[Example]:
    """The examples that have a token to score."""
    assert readout.logp is not None
    return [row for row, logp in zip(readout.examples, without_eos(readout, readout.logp), strict=True) if len(logp)]


def _scores(readout: Readout, k: float) -> np.ndarray:
    found = np.ma.masked_array(min_k(readout, k)).compressed()
    if not np.isfinite(found).all() or not len(found):
        raise NotMeasured(f"no finite log-probabilities on {readout.split}")
    return found
