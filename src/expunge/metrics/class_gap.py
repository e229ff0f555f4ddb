"""Gap of forgetting between classes."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured
from expunge.metrics._groups import MIN_EXAMPLES, MIN_GROUPS, Groups, bootstrap, figure, permutation_p, wilson_margin
from expunge.metrics.group_gap import gap_from

CARD = MetricCard(
    "Gap of forgetting between classes",
    paper="arXiv:2007.10306",
    equation="largest difference between groups",
    side="alignment",
    better="gold",
    unit="share",
    capabilities=("labels",),
    needs={"forget": {"logits"}, "before.forget": {"logits"}},
    means="How much more one class of the forget set was forgotten than another. Gold's is the aim: some classes are "
    "easier to recognise without their examples. Above 0 by chance alone, so check its p-value.",
)


def class_gap() -> Metric:
    """Loss of the probability of the label in the most forgotten class of the forget set, less that in the least.

    Classes of at least 5 forget examples; BCa bootstrap over the examples within classes.
    """

    def values(forget: Readout, before_forget: Readout) -> Figure:
        found = classes(before_forget, forget)
        interval = bootstrap(found, gap_from)
        if interval.low == interval.high:
            margin = wilson_margin(found)
            interval = interval._replace(low=max(0.0, interval.value - margin), high=interval.value + margin)
        change = np.array([now.mean() - then.mean() for then, now in zip(found.before, found.after, strict=True)])
        return figure(found, interval, permutation_p(found, gap_from, more=True), change, "change of probability")

    return values


def classes(before: Readout, after: Readout) -> Groups:
    """The label's probability by class. Raises NotMeasured where fewer than two classes have 5 examples."""
    assert after.labels_N is not None and before.nll_N is not None and after.nll_N is not None
    labels_N = after.labels_N
    then_N, now_N = np.exp(-before.nll_N), np.exp(-after.nll_N)
    names, counts = np.unique(labels_N, return_counts=True)
    kept = [name for name, count in zip(names, counts, strict=True) if count >= MIN_EXAMPLES]
    if len(kept) < MIN_GROUPS:
        raise NotMeasured(f"fewer than {MIN_GROUPS} classes have {MIN_EXAMPLES} forget examples")
    omitted = f"; classes of fewer than {MIN_EXAMPLES} examples left out: {len(names) - len(kept)}"
    then, now = ([side[labels_N == name] for name in kept] for side in (then_N, now_N))
    return Groups([f"class {name}" for name in kept], then, now, omitted if len(names) > len(kept) else "")
