"""Feature rate: how many pictures of a generator that cannot be asked show what must go."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric
from expunge.metrics._pictures import count_unknown

CARD = MetricCard(
    "Feature rate",
    paper="arXiv:2309.14054",
    equation="PUL, the share of generated pictures with the feature",
    side="forgetting",
    better="lower",
    unit="share",
    aggregate="share",
    capabilities=("gan",),
    needs={"split": {"concept"}},
    splits=("forget",),
    means="The share of pictures, eight for each example from noise of its own, the same for every model, in which the "
    "judges see the example's label: the mean of two judges' votes. A model of all ten classes draws each in a tenth, "
    "without being asked; one picture unknown makes its example unknown, which counts against the model.",
)


def feature_rate() -> Metric:
    """The mean vote of the judges that what was drawn shows the label that must go."""

    def values(split: Readout) -> np.ndarray:
        return count_unknown(split, split.own["concept"])

    return values
