"""Classification by prompts."""

from __future__ import annotations

import numpy as np

from expunge.core.card import MetricCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Metric, NotMeasured
from expunge.metrics._pairs import best, vectors

CARD = MetricCard(
    "Zero-shot accuracy",
    paper="arXiv:2103.00020",
    side="utility",
    better="higher",
    unit="share",
    aggregate="share",
    capabilities=("pairs",),
    needs={"split": {"image_embedding", "prompt_embedding"}, "retain": {"prompt_embedding"}},
    means="The share of pictures that are nearer to their own class's prompt than to all others, with nothing trained. "
    "The classes are those of the split and of retain. Where rows have no class_prompt, each caption is a class.",
)


def zero_shot_accuracy() -> Metric:
    """Whether a picture's nearest class prompt is its own, among the prompts of the split and of retain."""

    def values(split: Readout, retain: Readout) -> np.ndarray:
        found = {name: vector for part in (retain, split) for name, vector in zip(*_prompts(part), strict=True)}
        if len(found) < 2:
            raise NotMeasured("there is a single class")
        return best(vectors(split, "image_embedding"), _prompts(split)[0], np.stack(list(found.values())), list(found))

    return values


def _prompts(readout: Readout) -> tuple[list[str], np.ndarray]:
    """The class prompt of each example, and its vector."""
    names = [str(row.get("class_prompt", row["text"])) for row in readout.examples]
    return names, vectors(readout, "prompt_embedding")
